"""A short soak test; `python -m tools.soak` runs a long one."""

import pytest

from tests.exhaustive import EXHAUSTIVE
from tests.soak.jobs import JOBS

pytestmark = pytest.mark.long


TRAIN, GENERATE, EXPORT = JOBS
MORE = ((TRAIN, 0), (GENERATE, 0), (GENERATE, 1), (EXPORT, 0), (EXPORT, 1))


@pytest.mark.parametrize(
  ('job', 'seed'),
  [(TRAIN, 1), *(pytest.param(*case, marks=EXHAUSTIVE) for case in MORE)],  # the clock jumps if the seed is odd
  ids=lambda value: getattr(value, 'name', str(value)),
)
def test_killed_job_has_the_result_of_an_unbroken_one(soak, job, seed):
  record = soak.killed_run(job, seed, most_kills=3)
  assert record.kills
  assert (record.failed, record.mismatches, [kill for kill in record.kills if kill.problem]) == ('', (), [])
