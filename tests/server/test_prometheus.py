"""What Prometheus reads is what happened."""

from __future__ import annotations

from platform_process import PlatformProcess, Run, ok, refused
from prometheus_client.parser import text_string_to_metric_families
from test_prediction_log import deployed


def scraped(platform: PlatformProcess) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    answer = platform.client().get("/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_requests_and_predictions_are_counted_once(platform: PlatformProcess) -> None:
    owner = platform.client()
    address = deployed(owner, "counted")
    before = scraped(platform)
    for _ in range(5):
        ok(owner.post(address, json={"data": [{"dose": 1.0}, {"dose": 2.0}]}))
    refused(owner.post(address, json={"data": {"dose": "high"}}), 422, "invalid_input")
    ok(owner.get("/api/v1/models"))
    after = scraped(platform)

    def grown(name: str, **labels: str) -> float:
        key = name, frozenset(labels.items())
        return after.get(key, 0.0) - before.get(key, 0.0)

    version = {"organisation": "default", "model": "counted", "version": "1"}
    assert grown("truststram_predictions_total", **version, status="200") == 5
    assert grown("truststram_predictions_total", **version, status="422") == 1
    assert grown("truststram_predicted_rows_total", **version) == 10
    for operation, method, status, count in (
        ("predict", "POST", "200", 5),
        ("predict", "POST", "422", 1),
        ("list_models", "GET", "200", 1),
    ):
        labels = {"operation": operation, "method": method, "status": status}
        assert grown("truststram_http_requests_total", **labels) == count, labels
    assert grown("truststram_http_request_seconds_count", operation="predict") == 6
    assert (
        after[
            "truststram_prediction_workers",
            frozenset({("pool", "network"), ("runtime", "network")}),
        ]
        >= 1
    )
    assert after["process_resident_memory_bytes", frozenset()] > 1e6


def test_what_callers_make_up_makes_no_series(platform: PlatformProcess) -> None:
    owner = platform.client()

    def make_up(first: int) -> set[tuple[str, frozenset[tuple[str, str]]]]:
        for number in range(first, first + 10):
            owner.get(f"/api/v1/nothing/{number}")
            owner.post(f"/api/v1/endpoints/nobody{number}/predict", json={"data": {}})
            owner.get(f"/api/v1/models/none-{number}")
            owner.request(f"BREW{number}", "/api/v1/models")
        scraped(platform)  # is a request itself
        return set(scraped(platform))

    assert make_up(0) == make_up(10)


def test_only_an_administrator_reads_them(platform: PlatformProcess) -> None:
    run = Run(platform, "metered")
    refused(platform.client(None).get("/metrics"), 401, "authentication_failed")
    refused(run.clients[0].get("/metrics"), 403, "forbidden")
