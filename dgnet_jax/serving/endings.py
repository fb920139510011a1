"""How requests end: a refused upload is read on until its client has the answer, and a stop is answered too."""

import asyncio
import contextlib

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dgnet_jax.serving.responses import error_response

DISCARD_SECONDS = 2  # that the rest of an upload is read for when it has been answered already


class ReadOn:
  """Passes requests to an application, and reads what it leaves of their bodies.

  A connection that is closed while data arrive is reset, and the client loses the answer. So the answer is sent at
  once, and ended when the client has sent everything, or after `DISCARD_SECONDS`. A request that is cancelled, because
  the server stops, is answered with status 503.
  """

  def __init__(self, app: ASGIApp) -> None:
    self._app = app

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    is_read = is_answered = False

    async def receive_noted() -> Message:
      nonlocal is_read
      message = await receive()
      is_read = not message.get('more_body', False)  # also if the client has gone
      return message

    async def send_and_read_on(message: Message) -> None:
      nonlocal is_answered
      is_answered = True
      if message['type'] == 'http.response.body' and not message.get('more_body', False) and not is_read:
        await send({**message, 'more_body': True})
        with contextlib.suppress(TimeoutError):
          async with asyncio.timeout(DISCARD_SECONDS):
            while not is_read:
              await receive_noted()
        message = {'type': 'http.response.body'}
      await send(message)

    try:
      await self._app(scope, receive_noted, send_and_read_on)
    except asyncio.CancelledError:
      if is_answered:
        raise
      await error_response('busy', 'the server stops; try again later')(scope, receive_noted, send_and_read_on)
