"""Limits on connections and requests: how many, how long one may be idle, how long a request may take."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import h11
from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.h11_impl import H11Protocol

from dgnet_jax.serving.endings import ReadOn
from dgnet_jax.serving.responses import error_response

MAX_REQUESTS = 64  # being answered
MAX_REQUESTS_PER_CLIENT = 16  # of one address; a browser sends up to 6
MAX_CONNECTIONS = 256  # open, also without a request
MAX_CONNECTIONS_PER_CLIENT = 64
IDLE_SECONDS = 10  # without a complete request; bytes that trickle in do not prolong it
REQUEST_SECONDS = 180  # from a request's header to its response, and again for the client to read it


class LimitedProtocol(H11Protocol):
  """A connection with limits.

  If there are too many, the one that has been idle for longest is closed: of the same client if that has too many, else
  of all; the new one if none is idle. If too many requests are being answered, the next is refused with status 429 if
  they are its client's, else with 503.
  """

  def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
    super().connection_made(transport)
    self._timer: asyncio.TimerHandle | None = None
    self._idle_since = self.loop.time()
    self._is_answering = False
    self._guarded_app, self.app = self.app, ReadOn(self._answer)
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
    self._is_answering = False
    self._idle_since = self.loop.time()
    self._call_after(IDLE_SECONDS, self._close)
    super().on_response_complete()  # starts the next request if it is there already

  def send_400_response(self, msg: str) -> None:
    """Answers what is not HTTP as everything else that is refused."""
    if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):  # else an answer is under way
      response = error_response('malformed', 'the request is not HTTP/1.1, or its header is longer than 64 KiB')
      headers = [*self.server_state.default_headers, *response.raw_headers, CLOSE_HEADER]
      for event in (
        h11.Response(status_code=400, headers=headers),
        h11.Data(data=bytes(response.body)),
        h11.EndOfMessage(),
      ):
        self.transport.write(self.conn.send(event))
    self.transport.close()

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

  def _others(self, *, of_client: bool) -> list['LimitedProtocol']:
    others = [cast(LimitedProtocol, other) for other in self.connections if other is not self]
    if of_client:
      others = [other for other in others if other.client and self.client and other.client[0] == self.client[0]]
    return others

  def _make_room(self) -> None:
    others = self._others(of_client=True)
    if len(others) < MAX_CONNECTIONS_PER_CLIENT:
      others = self._others(of_client=False)
      if len(others) < MAX_CONNECTIONS:
        return
    idle = [other for other in others if other.is_idle]
    closed = min(idle, key=lambda other: other._idle_since, default=self)
    self.connections.discard(closed)
    closed.transport.abort()

  async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
    """Passes a request on, unless too many are being answered."""
    refusal = None
    if sum(other._is_answering for other in self._others(of_client=True)) >= MAX_REQUESTS_PER_CLIENT:
      message = f'{MAX_REQUESTS_PER_CLIENT} requests of this client are being answered; wait for them'
      refusal = error_response('too_many_requests', message)
    elif sum(other._is_answering for other in self._others(of_client=False)) >= MAX_REQUESTS:
      refusal = error_response('busy', f'{MAX_REQUESTS} requests are being answered; try again later')
    self._is_answering = refusal is None
    await (refusal or self._guarded_app)(scope, receive, send)
