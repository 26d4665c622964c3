"""Topologies: a YAML file that says who holds what and which models are born from which."""

from fedunlearn.scenario.assess import (
    assess as assess,
    assessed as assessed,
    keep_assessed as keep_assessed,
    line_of as line_of,
)
from fedunlearn.scenario.build import check_samples as check_samples, open_site_data as open_site_data
from fedunlearn.scenario.doubts import doubts as doubts
from fedunlearn.scenario.files import (
    find_topology as find_topology,
    load as load,
    of_family as of_family,
    read_plain as read_plain,
)
from fedunlearn.scenario.places import (
    backend_of as backend_of,
    forget as forget,
    go_on as go_on,
    open_worker as open_worker,
    retrained as retrained,
    sites_away as sites_away,
)
from fedunlearn.scenario.requests import cases_of as cases_of, request_of as request_of
from fedunlearn.scenario.schema import Scenario as Scenario
from fedunlearn.scenario.site import Site as Site, open_site as open_site, open_site_in as open_site_in
from fedunlearn.scenario.train import extend as extend, grown as grown, reference as reference, train as train
from fedunlearn.scenario.train_afar import extend_afar as extend_afar, train_afar as train_afar
from fedunlearn.scenario.workers import workers as workers
from fedunlearn.scenario.workers_here import workers_here as workers_here
