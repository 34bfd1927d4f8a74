"""Cards and the live view for people who use keys, magnifiers, screen readers or own colours."""

from __future__ import annotations

import time

import pytest
from lab_page import LabPage, new_context
from saved_tutorial import OUTPUTS, TUTORIAL, assert_faithful, checked, exported, unfold

WATCHED_S = 3.0
TABS = 60

NARROW = "width:80px;white-space:nowrap"


def outputs(*contents: tuple[str, str]) -> str:
    """A page of outputs: the style and the content of each."""
    made = (f'<div class="{OUTPUTS[1:]}" style="{style}">{html}</div>' for style, html in contents)
    return "".join(made)


WRONG = outputs(
    ("background:#fff", '<p style="color:#999">pale 1</p>'),
    ("", '<p style="color:rgba(0,0,0,.4)">thin 2</p>'),
    ("", '<span style="color:#fc0">█████</span>'),
    ("height:20px", ""),
    (f"overflow:hidden;{NARROW}", "cut off 12345678901234"),
    ("", "<table><tr><td>1</td></tr></table>"),
)
RIGHT = outputs(
    ("", '<p>dark 1 <span style="color:#0f7ec2">███</span></p>'),
    (f"overflow:auto;{NARROW}", "scrolled 12345678901234"),
    ("", '<table><caption>c</caption><tr><th scope="row">a</th></tr></table>'),
)


@pytest.fixture(scope="module")
def extension() -> bool:
    """Without it: what is seen here is the static HTML and nothing else."""
    return False


@pytest.fixture(scope="module")
def saved(open_page, server) -> LabPage:
    """The tutorial's cards, unfolded, without a kernel."""
    lab = open_page().open(server.add_saved("cards.ipynb", TUTORIAL, trusted=True), kernel=False)
    assert_faithful(lab.page)
    return lab


def test_the_checks_find_what_is_wrong_and_nothing_else(context):
    page = context.new_page()
    page.set_content(WRONG)
    assert [found.partition(":")[0] for found in checked(page, "lowContrast")] == [
        "pale 1",
        "thin 2",
        "█████",
    ]
    assert len(checked(page, "blank")) == 1
    assert checked(page, "outOfReach") == ["cut off 12345678901234"]
    assert len(checked(page, "untitledTables")["bad"]) == 1
    page.set_content(RIGHT)
    for check in ("lowContrast", "blank", "outOfReach"):
        assert checked(page, check) == []
    assert checked(page, "untitledTables") == {"tables": 1, "bad": []}
    page.close()


def axe_run(page) -> tuple[set[str], list[str]]:
    """What axe judged inside the outputs, and what it found serious or critical."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = axe.Axe().run(page, context=OUTPUTS).response
    grave = [
        f"{each['id']}: {each['nodes'][0]['html'][:200]}"
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
    ]
    return {each["id"] for each in found["passes"]}, grave


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious_inside_our_outputs(saved, theme):
    saved.theme(theme)
    judged, grave = axe_run(saved.page)
    assert grave == []
    assert {"scope-attr-valid", "summary-name", "td-headers-attr"} <= judged


def test_axe_finds_nothing_serious_in_an_exported_page(context, tmp_path):
    # Here it judges colours as well, which it takes JupyterLab's panels to hide.
    page = context.new_page()
    page.goto(exported(TUTORIAL, tmp_path).as_uri())
    unfold(page)
    judged, grave = axe_run(page)
    assert grave == []
    assert "color-contrast" in judged
    page.close()


def test_every_table_has_a_caption_and_row_headers(saved):
    found = checked(saved.page, "untitledTables")
    assert found["tables"] >= 5
    assert found["bad"] == []


def test_forced_colours_keep_every_word_visible(saved):
    saved.theme("light")
    saved.page.emulate_media(forced_colors="active")
    assert saved.page.evaluate("matchMedia('(forced-colors: active)').matches")
    assert checked(saved.page, "lowContrast") == []
    assert checked(saved.page, "blank") == []
    saved.picture("access-forced-colours")
    saved.page.emulate_media(forced_colors="none")


def test_at_double_size_every_number_can_be_brought_into_view(server, browser, elsewhere):
    # What 200 % does to a window of 1280 by 1024: half the room in each direction.
    context = new_context(
        browser, elsewhere, viewport={"width": 640, "height": 512}, device_scale_factor=2
    )
    page = LabPage(server, context).open("cards.ipynb", kernel=False)
    unfold(page.page)
    assert checked(page.page, "outOfReach") == []
    for index, name in enumerate(("sign-in", "run", "prediction")):
        page.page.locator(OUTPUTS).nth(index).scroll_into_view_if_needed()
        page.picture(f"access-double-size-{name}")
    context.close()


def test_stop_is_reached_with_tab_and_keeps_the_focus_while_the_card_moves(open_page, server):
    page = open_page().open(server.add_notebook("keys.ipynb", ["# keys alone"]))
    page.page.emulate_media(reduced_motion="reduce")
    page.run("%load_ext truststram_lab\n%ts_login --sandbox", wait=True)
    cell = page.run("%ts_federate breast-cancer --clients 3 --rounds 400 --epochs 1 --as keys")
    cell.record()
    cell.until_round(1)
    cell.stop_button.wait_for()

    for _ in range(TABS):
        if on_stop(page):
            break
        page.page.keyboard.press("Tab")
    assert on_stop(page), "Stop was not reached"
    before = cell.record_so_far["rounds"][-1]
    deadline = time.monotonic() + WATCHED_S
    while time.monotonic() < deadline:
        assert on_stop(page)
        assert checked(page.page, "moving") == 0
        time.sleep(0.1)
    page.picture("access-focus")
    assert cell.record_so_far["rounds"][-1] >= before + 2
    page.page.keyboard.press("Space")
    cell.finish()
    assert "was stopped" in cell.text
    assert checked(page.page, "blank") == []


def on_stop(page: LabPage) -> bool:
    """Whether the keyboard's focus is on a visible Stop button."""
    found: bool = page.page.evaluate(
        "document.activeElement?.matches('button') && document.activeElement.innerText === 'Stop'"
        " && document.activeElement.checkVisibility()"
    )
    return found
