"""A process that was asked to stop says how far it came, whatever else reaches it on its way out."""

from __future__ import annotations

import os
import signal
import time

import pytest

from fgvc.provenance.stopping import SLACK_S, StoppedError, StopRequest


def leave_with(stop: StopRequest, then: signal.Signals) -> None:
    """Stop as a training does, and be told once more while the processes are being ended."""
    try:
        with stop.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.is_due()
            raise stop.error("at step 3 of 9")
    finally:
        os.kill(os.getpid(), then)


@pytest.mark.parametrize("then", [signal.SIGTERM, signal.SIGUSR1])
def test_a_second_request_does_not_hide_what_was_saved(then: signal.Signals) -> None:
    with StopRequest() as stop, pytest.raises(StoppedError) as caught:
        leave_with(stop, then)
    assert (caught.value.done, caught.value.reason) == ("at step 3 of 9", "SIGTERM")
    assert "goes on from here" in caught.value.message


def test_a_deadline_that_passes_on_the_way_out_does_not_hide_what_was_saved() -> None:
    with StopRequest(SLACK_S + 0.2) as stop, pytest.raises(StoppedError) as caught:
        try:
            with stop.deferred():
                raise stop.error("at step 3 of 9")
        finally:
            time.sleep(0.4)
    assert caught.value.done == "at step 3 of 9"


def test_ctrl_c_pressed_again_ends_at_once() -> None:
    with StopRequest() as stop, pytest.raises(KeyboardInterrupt):
        leave_with(stop, signal.SIGINT)
