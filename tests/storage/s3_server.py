"""A server on this machine that speaks S3."""

import contextlib
import logging

BUCKET = 'bucket'


@contextlib.contextmanager
def s3_server():
  """Serves an empty bucket; yields the environment in which s3fs finds it."""
  from moto.server import ThreadedMotoServer  # late: not everybody has it

  logging.getLogger('werkzeug').setLevel(logging.ERROR)
  server = ThreadedMotoServer(ip_address='127.0.0.1', port=0, verbose=False)
  server.start()
  try:
    host, port = server.get_host_and_port()
    keys = {'AWS_ACCESS_KEY_ID': 'id', 'AWS_SECRET_ACCESS_KEY': 'secret', 'AWS_DEFAULT_REGION': 'us-east-1'}
    environment = {'AWS_ENDPOINT_URL': f'http://{host}:{port}', **keys}
    _create_bucket(environment)
    yield environment
  finally:
    server.stop()


def _create_bucket(environment):
  import boto3

  client = boto3.client(
    's3',
    endpoint_url=environment['AWS_ENDPOINT_URL'],
    aws_access_key_id=environment['AWS_ACCESS_KEY_ID'],
    aws_secret_access_key=environment['AWS_SECRET_ACCESS_KEY'],
    region_name=environment['AWS_DEFAULT_REGION'],
  )
  client.create_bucket(Bucket=BUCKET)
  client.close()
