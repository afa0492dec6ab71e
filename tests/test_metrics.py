"""The metrics: what Prometheus reads, and that no series can grow without bound."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families

from service import metrics

METRICS = {
    name: metric
    for name, metric in vars(metrics).items()
    if name.isupper() and isinstance(metric, (Counter, Gauge, Histogram))
}


def test_every_metric_is_read_under_a_name_of_its_own() -> None:
    text, content_type = metrics.render()
    ours = {
        family.name
        for family in text_string_to_metric_families(text.decode())
        if family.name.startswith("countersign_")
    }
    assert content_type.startswith("text/plain")
    assert ours == {f"countersign_{name.lower()}" for name in METRICS}


def test_labels_name_kinds_and_never_one_person_or_execution() -> None:
    labels = {label for metric in METRICS.values() for label in metric._labelnames}
    assert labels == {"kind", "machine", "outcome", "reason", "resource", "status", "use"}


def test_a_count_is_what_was_counted() -> None:
    before = metrics.REGISTRY.get_sample_value("countersign_signups_total")
    assert before is not None
    metrics.SIGNUPS.inc()
    assert metrics.REGISTRY.get_sample_value("countersign_signups_total") == before + 1


def test_names_beyond_a_bound_share_their_series() -> None:
    names = [f"machine {n}" for n in range(metrics.NAMES_MAX + 5)]
    values = [metrics.bounded("a test's", name) for name in names]
    assert values == names[: metrics.NAMES_MAX] + [metrics.OTHER] * 5
    assert [metrics.bounded("a test's", name) for name in names] == values
