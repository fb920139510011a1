"""Limits on connections: how many, how long one may be idle, how long a request may take."""

import asyncio
from collections.abc import Callable
from typing import cast

from uvicorn.protocols.http.h11_impl import H11Protocol

from dgnet_jax.serving.responses import error_response

MAX_CONNECTIONS = 64
MAX_PER_CLIENT = 16  # connections from one address; a browser opens up to 6
IDLE_SECONDS = 10  # without a complete request; bytes that trickle in do not prolong it
REQUEST_SECONDS = 180  # from a request's header to its response, and again for the client to read it


class LimitedProtocol(H11Protocol):
  """A connection with limits.

  If there are too many, the one that has been idle for longest is closed: of the same client if that has too many, else
  of all. If none is idle, the new one is answered with status 429 if its client has too many, else with 503.
  """

  def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
    super().connection_made(transport)
    self._timer: asyncio.TimerHandle | None = None
    self._idle_since = self.loop.time()
    self._is_refused = False
    self._call_after(IDLE_SECONDS, self._close)
    self._make_room()

  def connection_lost(self, exc: Exception | None) -> None:
    if self._timer:
      self._timer.cancel()
    super().connection_lost(exc)

  def handle_events(self) -> None:
    before = self.cycle
    super().handle_events()
    if self.cycle is not before:
      self._call_after(REQUEST_SECONDS, self.transport.abort)

  def on_response_complete(self) -> None:
    self._idle_since = self.loop.time()
    self._call_after(IDLE_SECONDS, self._close)
    if self._is_refused:
      self.transport.close()  # there may be room for the next one
    super().on_response_complete()  # starts the next request if it is there already

  @property
  def is_idle(self) -> bool:
    """No request is being answered, and no response waits for the client to read it."""
    answered = self.cycle is None or self.cycle.response_complete
    return answered and not self.transport.get_write_buffer_size()

  def _call_after(self, seconds: float, function: Callable[[], None]) -> None:
    """Sets the connection's timer, which has one function at a time."""
    if self._timer:
      self._timer.cancel()
    self._timer = self.loop.call_later(seconds, function)

  def _close(self) -> None:
    """Reads no more, and closes when the client has read the response."""
    self.transport.close()
    self._call_after(REQUEST_SECONDS, self.transport.abort)

  def _make_room(self) -> None:
    others = [cast(LimitedProtocol, other) for other in self.connections if other is not self]
    of_client = [other for other in others if other.client and self.client and other.client[0] == self.client[0]]
    refusal = error_response('busy', 'the server has too many connections; try again later')
    if len(of_client) >= MAX_PER_CLIENT:
      others = of_client
      message = f'{MAX_PER_CLIENT} requests of this client are being answered; wait for them'
      refusal = error_response('too_many_requests', message)
    elif len(others) < MAX_CONNECTIONS:
      return
    idle = [other for other in others if other.is_idle]
    if idle:
      longest = min(idle, key=lambda other: other._idle_since)
      self.connections.discard(longest)
      longest.transport.abort()
    else:
      self.app = refusal
      self._is_refused = True
