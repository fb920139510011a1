"""A short soak test; `python -m tools.soak` runs a long one."""

import pytest

from tests.soak.jobs import JOBS

pytestmark = pytest.mark.long


@pytest.mark.parametrize('job', JOBS, ids=lambda job: job.name)
@pytest.mark.parametrize('seed', [0, 1])  # the clock jumps where it is odd
def test_killed_job_has_the_result_of_an_unbroken_one(soak, job, seed):
  record = soak.killed_run(job, seed, most_kills=3)
  assert record.kills
  assert (record.failed, record.mismatches, [kill for kill in record.kills if kill.problem]) == ('', (), [])
