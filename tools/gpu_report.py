"""`python -m tools.gpu_report`: the same as `dgnet gpu-report`."""

from dgnet_jax.cli.command import main
from dgnet_jax.cli.gpu_report import COMMAND

if __name__ == '__main__':
  main(COMMAND, 'python -m tools.gpu_report')
