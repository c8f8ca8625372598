"""What the rendered manifests have to fulfil. Each rule yields what is wrong, in words."""

from collections.abc import Callable, Iterator

import yaml

from tests.deploy.manifests import Manifests
from tests.deploy.rules import network, objects, overlays, pod_security, processes, storage

Rule = Callable[[Manifests], Iterator[str]]

RULES: tuple[Rule, ...] = (
    pod_security.pod_is_restricted,
    pod_security.containers_are_restricted,
    pod_security.no_token_is_mounted,
    processes.commands_are_the_codes_own,
    processes.ports_are_those_served,
    processes.probes_ask_what_the_code_answers,
    processes.drain_fits_the_grace_period,
    storage.mounts_are_used_and_files_are_there,
    storage.ledger_and_mark_are_on_claims_apart,
    storage.production_is_audited_in_two_places,
    storage.policy_is_good,
    network.flows_are_the_needed_ones,
    objects.one_broker_at_a_time,
    objects.service_reaches_the_broker,
    objects.certificate_is_the_servers,
    objects.service_monitor_finds_the_metrics,
    overlays.overlay_is_what_it_says,
)


_MALFORMED = (AssertionError, AttributeError, LookupError, TypeError, ValueError, SystemExit, yaml.YAMLError)


def problems(manifests: Manifests) -> list[str]:
    """All that is wrong. An object that is missing, or of another form, is wrong too."""
    found: list[str] = []
    for rule in RULES:
        try:
            found += [f"{rule.__name__}: {problem}" for problem in rule(manifests)]
        except _MALFORMED as error:
            found.append(f"{rule.__name__}: {type(error).__name__}: {error}")
    return found
