"""The side panel beside a notebook: it starts the sandbox, follows a run, and stops it."""

from __future__ import annotations

import pytest

from truststram_lab.sandbox.state import read_state

STOP_MS = 2000
PANEL = "#truststram-lab-panel"


@pytest.fixture(scope="module")
def traffic(context):
    """Every address, header and body of a request that the browser made."""
    seen: list[str] = []
    context.on("request", lambda r: seen.append(f"{r.url} {r.headers} {r.post_data or ''}"))
    return seen


@pytest.fixture(scope="module")
def lab(open_page, server, traffic):
    page = open_page().open(server.add_notebook("beside.ipynb", ["# beside the panel"]))
    page.command("truststram-lab:show")
    page.page.locator(PANEL).wait_for()
    return page


@pytest.fixture(scope="module")
def panel(lab):
    return lab.page.locator(PANEL)


def row(panel, name: str):
    return panel.get_by_role("row", name=name)


def test_the_panel_starts_the_sandbox_only_when_asked(lab, panel, shared_home):
    panel.get_by_text("Sandbox: not running").wait_for()
    assert read_state(shared_home) is None
    lab.picture("panel-stopped")
    panel.get_by_role("button", name="Start the sandbox").click()
    panel.get_by_text("Sandbox, this computer").wait_for()
    panel.get_by_text("No runs yet").wait_for()
    lab.picture("panel-empty")


def test_the_panel_follows_a_run_and_stops_it_while_the_cell_blocks_the_kernel(lab, panel):
    lab.run("%load_ext truststram_lab\n%ts_login --sandbox", wait=True)
    cell = lab.run("%ts_federate breast-cancer --clients 3 --rounds 400 --epochs 1 --as beside")
    cell.record()
    shown = row(panel, "Run beside-1")
    shown.wait_for()
    for number in (2, 4, 6):
        lab.page.wait_for_function(
            "([panel, number]) => Number(document.querySelector(panel)"
            ".querySelector('[role=progressbar]')?.getAttribute('aria-valuenow')) >= number",
            arg=[PANEL, number],
        )
    lab.picture("panel-live")

    stop = panel.get_by_role("button", name="Stop beside-1")
    stop.focus()
    lab.page.keyboard.press("Enter")
    cell.until_text("RunStoppedError")
    lab.until_idle()
    record = cell.record_so_far
    assert record["saidStopped"] - record["lastInput"] <= STOP_MS, record
    panel.get_by_role("row", name="Run beside-1, stopped").wait_for()
    lab.picture("panel-after-stop")


def test_a_row_puts_its_cell_into_the_notebook(lab, panel):
    lab.run("%ts_federate breast-cancer --clients 2 --rounds 1 --epochs 1 --as shown", wait=True)
    panel.get_by_role("row", name="Run shown-1, done").wait_for()
    panel.get_by_role("button", name="Insert a cell for run shown-1").click()
    lab.page.wait_for_function(
        "live.notebook().content.activeCell.model.sharedModel.getSource() === '%ts_runs shown-1'"
    )
    lab.picture("panel-inserted")


def test_a_deployment_says_by_which_alias_it_was_named(lab, panel):
    lab.run(
        "from truststram_lab import TrustStramClient\n"
        "from truststram_lab.schemas.registry import CreateVersion\n"
        "with TrustStramClient() as client:\n"
        "    first = client.models.version('shown').model_dump()\n"
        "    same = {k: first[k] for k in CreateVersion.model_fields if k != 'label'}\n"
        "    second = client.models.create_version('shown', CreateVersion(**same))\n"
        "    client.models.set_alias('shown', 'champion', second.sequence)\n"
        "    made = client.deployments.create('shown@champion')",
        wait=True,
    )
    words = "Deployment shown, serves shown:2 (deployed as shown@champion), ready"
    shown = row(panel, words)
    shown.wait_for()
    # the eye has less room than a screen reader: nothing of the line may be cut
    line = shown.locator(".ts-rest")
    assert line.inner_text() == "@champion, version 2, ready"
    assert line.evaluate("node => node.scrollWidth <= node.clientWidth")
    lab.picture("panel-alias")


def test_what_is_deleted_leaves_the_panel(lab, panel):
    made = (
        "    first = client.models.version('shown').model_dump()\n"
        "    same = {k: first[k] for k in CreateVersion.model_fields if k != 'label'}\n"
        "    client.models.create('passing')\n"
        "    client.models.create_version('passing', CreateVersion(**same))\n"
        "    done = client.deployments.create('passing')"
    )
    gone = "    client.deployments.delete('passing')\n    client.models.delete('passing')"
    lab.run(f"with TrustStramClient() as client:\n{made}", wait=True)
    deployment = panel.get_by_role("row", name="Deployment passing")
    model = panel.get_by_role("row", name="Model passing")
    deployment.wait_for()
    model.wait_for()
    lab.run(f"with TrustStramClient() as client:\n{gone}", wait=True)
    deployment.wait_for(state="detached")
    model.wait_for(state="detached")
    assert row(panel, "Deployment shown").count() == 1


def test_the_panel_reads_no_event_from_before_it_was_opened(traffic):
    opened = [each for each in traffic if "/events?" in each and "stream=org" in each]
    assert "after=latest" in opened[0]


def test_the_panel_is_walked_with_arrow_keys(lab, panel):
    panel.get_by_role("row").first.focus()
    heard = [lab.page.evaluate("document.activeElement.ariaLabel")]
    for _ in range(3):
        lab.page.keyboard.press("ArrowDown")
        lab.page.wait_for_function(
            "former => document.activeElement.ariaLabel !== former", arg=heard[-1]
        )
        heard.append(lab.page.evaluate("document.activeElement.ariaLabel"))
    assert [label.split()[0] for label in heard] == ["Runs,", "Run", "Run", "Models,"]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_the_panel(lab, panel, theme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    lab.theme(theme)
    lab.picture(f"panel-{theme}")
    found = axe.Axe().run(lab.page, context=PANEL).response
    assert [
        f"{each['id']}: {each['nodes'][0]['html'][:200]}"
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
    ] == []
    assert lab.page.evaluate("selector => checks.lowContrast(selector)", PANEL) == []


def test_the_browser_never_holds_a_credential_of_the_platform(lab, traffic, shared_home):
    state = read_state(shared_home)
    assert state is not None
    assert any("/truststram/platform/api/v1/runs" in each for each in traffic)
    assert not any(state.api_key in each for each in traffic)
    kept = lab.page.evaluate("JSON.stringify([{...localStorage}, document.cookie])")
    assert state.api_key not in kept
