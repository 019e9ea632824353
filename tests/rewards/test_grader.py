"""The grader against a real server on this machine, which answers like an OpenAI-compatible endpoint, or badly."""

from __future__ import annotations

import base64
import contextlib
import io
import itertools
import json
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rewardsds.cli import main
from rewardsds.rewards.base import RewardError
from rewardsds.rewards.grader import ASPECTS, GraderReward
from rewardsds.rewards.load import load_reward

pytest.importorskip("openai")
SECRET = "sk-not-to-be-written-anywhere"


class Endpoint:
    """Grades pictures by how red they are. `status`, `body`, `headers`, and `spaces` that it sends first, ten a second,
    change what it answers; `requests` are kept."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.status: Callable[[int], int] = lambda count: 200
        self.body: Callable[[dict[str, Any]], Any] = grades
        self.refusal: Any = "no"
        self.headers: dict[str, str] = {}
        self.pause = "1"
        self.spaces = 0
        self.lock = threading.Lock()

    def serve(self) -> Iterator[str]:
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with endpoint.lock:
                    endpoint.requests.append(request)
                    endpoint.keys.append(self.headers["Authorization"])
                    status = endpoint.status(len(endpoint.requests))
                content = (
                    endpoint.body(request)
                    if status == 200
                    else {"error": {"message": endpoint.refusal}}
                    if isinstance(endpoint.refusal, str)
                    else endpoint.refusal
                )
                text = content if isinstance(content, str) else json.dumps(content)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Retry-After-Ms", endpoint.pause)
                for name, value in endpoint.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                with contextlib.suppress(OSError):  # who asked has gone
                    for _ in range(endpoint.spaces):
                        self.wfile.write(b" ")
                        time.sleep(0.1)
                    self.wfile.write(text.encode())

            def log_message(self, format: str, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        server.server_close()

    def refuse(self, name: str, words: str, status: int = 400) -> None:
        """Answers with a status and words where a request holds something."""
        self.status = lambda count: status if name in self.requests[-1] else 200
        self.refusal = words


def shown(request: dict[str, Any]) -> np.ndarray:
    url = request["messages"][1]["content"][1]["image_url"]["url"]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,")))))


def answered(content: str) -> dict[str, Any]:
    return {
        "id": "1", "object": "chat.completion", "created": 0, "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}],
    }  # fmt: skip


def grades(request: dict[str, Any]) -> dict[str, Any]:
    red = float(shown(request)[..., 0].mean()) / 25.5
    return answered(json.dumps({**dict.fromkeys(ASPECTS, 5), "overall_score": red}))


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Endpoint:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    return Endpoint()


@pytest.fixture
def url(endpoint: Endpoint) -> Iterator[str]:
    yield from endpoint.serve()


def pictures(candidates: int = 3, items: int = 2, views: int = 1) -> torch.Tensor:
    """Redness 0, 0.1, 0.2 … in the order of candidates and items."""
    red = torch.arange(candidates * items, dtype=torch.float32).reshape(candidates, items, 1, 1, 1) / 10
    images = torch.zeros(candidates, items, views, 3, 8, 8)
    images[:, :, :, 0] = red
    return images


def test_candidates_are_graded_with_their_own_prompts(endpoint: Endpoint, url: str):
    scores = GraderReward("m", url)(pictures(), ["a red cube", "a ball"])
    torch.testing.assert_close(scores, torch.arange(6.0).reshape(3, 2), atol=0.02, rtol=0)
    told = sorted(request["messages"][1]["content"][0]["text"] for request in endpoint.requests)
    assert told == ["The text: a ball"] * 3 + ["The text: a red cube"] * 3
    request = endpoint.requests[0]
    assert request["model"] == "m"
    assert request["response_format"]["json_schema"]["schema"]["required"][-1] == "overall_score"
    assert set(endpoint.keys) == {f"Bearer {SECRET}"}


def test_views_are_shown_side_by_side(endpoint: Endpoint, url: str):
    images = pictures(1, 1, 4)
    images[0, 0, 2, 2] = 1
    GraderReward("m", url)(images, ["a cube"])
    sheet = shown(endpoint.requests[0])
    assert sheet.shape == (8, 32, 3)
    assert (sheet[:, 16:24, 2] == 255).all()
    assert sheet[:, :16, 2].max() == 0


def test_an_answer_is_kept_and_the_key_is_not(endpoint: Endpoint, url: str, tmp_path: Path):
    first = GraderReward("m", url, cache=tmp_path)
    scores = first(pictures(), ["a", "b"])
    assert (first.asked, len(endpoint.requests)) == (6, 6)
    first(pictures(), ["a", "b"])
    again = GraderReward("m", url, cache=tmp_path)
    torch.testing.assert_close(again(pictures(), ["a", "b"]), scores)
    assert (again.asked, len(endpoint.requests)) == (0, 6)
    GraderReward("other", url, cache=tmp_path)(pictures(1, 1), ["a"])
    assert len(endpoint.requests) == 7
    files = list(tmp_path.iterdir())
    assert len(files) == 7
    assert not any(SECRET in file.read_text() for file in files)
    files[0].write_text("{")  # cut off: asked again
    GraderReward("m", url, cache=tmp_path)(pictures(), ["a", "b"])
    GraderReward("other", url, cache=tmp_path)(pictures(1, 1), ["a"])
    assert len(endpoint.requests) == 8


def test_equal_pictures_are_asked_about_once(endpoint: Endpoint, url: str):
    images = pictures(1, 1).expand(5, 1, 1, 3, 8, 8)
    assert GraderReward("m", url)(images, ["a"]).shape == (5, 1)
    assert len(endpoint.requests) == 1


def test_a_busy_or_failing_endpoint_is_asked_again(endpoint: Endpoint, url: str):
    endpoint.status = lambda count: {1: 429, 2: 500, 3: 503}.get(count, 200)
    scores = GraderReward("m", url, parallel=1)(pictures(2, 1), ["a"])
    torch.testing.assert_close(scores, torch.tensor([[0.0], [1.0]]), atol=0.02, rtol=0)
    assert len(endpoint.requests) == 5


@pytest.mark.parametrize(
    "status, told",
    [(500, "answered with status 500, again and again: no"), (401, "refuses the key in OPENAI_API_KEY"),
     (404, "knows no model 'm'")],
)  # fmt: skip
def test_an_endpoint_that_stays_bad_is_told(endpoint: Endpoint, url: str, status: int, told: str):
    endpoint.status = lambda count: status
    with pytest.raises(RewardError, match=told) as error:
        GraderReward("m", url, retries=1)(pictures(1, 1), ["a"])
    assert SECRET not in str(error.value)


@pytest.mark.parametrize(
    "body, told",
    [
        (answered("I would say: nice!"), "answered no grades: 'I would say: nice!'"),
        (answered(json.dumps({"overall_score": 3})), "answered no grades"),
        (answered(json.dumps({**dict.fromkeys(ASPECTS, 5), "overall_score": 11})), "gave overall_score 11"),
        (answered(json.dumps({**dict.fromkeys(ASPECTS, 5), "overall_score": True})), "answered no grades"),
        ({"choices": []}, "answered no grades: 'None'"),
        ("<html>gateway</html>", "answered what is no JSON"),
    ],
)
def test_garbage_is_told(endpoint: Endpoint, url: str, body: Any, told: str):
    endpoint.body = lambda request: body
    with pytest.raises(RewardError, match=told):
        GraderReward("m", url, retries=0)(pictures(1, 1), ["a"])


def test_a_refusal_is_told_in_the_endpoints_words_and_without_the_key(endpoint: Endpoint, url: str):
    endpoint.status = lambda count: 400
    endpoint.refusal = f"pictures: none are seen by m;\n your key {SECRET} may use it {'x' * 400}"
    with pytest.raises(RewardError) as error:
        GraderReward("m", url)(pictures(1, 1), ["a"])
    told = str(error.value)
    assert "answered with status 400: pictures: none are seen by m; your key … may use it xxx" in told
    assert "again" not in told
    assert SECRET not in told
    assert len(told) < 400
    assert len(endpoint.requests) == 1


def test_answers_that_came_beside_a_bad_one_are_paid_for_once(endpoint: Endpoint, url: str, tmp_path: Path):
    lock, asked = threading.Lock(), [0]

    def first_is_garbage(request: dict[str, Any]) -> dict[str, Any]:
        with lock:
            asked[0] += 1
            return answered("nice!") if asked[0] == 1 else grades(request)

    endpoint.body = first_is_garbage
    grader = GraderReward("m", url, cache=tmp_path, parallel=8)
    with pytest.raises(RewardError, match="answered no grades: 'nice!'"):
        grader(pictures(8, 1), ["a"])
    assert len(list(tmp_path.glob("*.json"))) == asked[0] - 1 == grader.asked - 1
    scores = GraderReward("m", url, cache=tmp_path)(pictures(8, 1), ["a"])
    torch.testing.assert_close(scores[:, 0], torch.arange(8.0), atol=0.02, rtol=0)
    assert asked[0] == 9  # every other answer was kept


def test_nothing_more_is_asked_after_a_bad_answer(endpoint: Endpoint, url: str):
    def refused(count: int) -> int:
        time.sleep(0.05)
        return 401

    endpoint.status = refused
    grader = GraderReward("m", url, parallel=2)
    with pytest.raises(RewardError, match="refuses the key"):
        grader(pictures(10, 1), ["a"])
    assert len(endpoint.requests) == grader.asked < 10


def test_the_budget_is_never_exceeded(endpoint: Endpoint, url: str):
    grader = GraderReward("m", url, budget=7)
    grader(pictures(), ["a", "b"])
    with pytest.raises(RewardError, match="may be asked 7 times and was asked 6 times; 6 more questions"):
        grader(pictures(), ["c", "d"])
    assert len(endpoint.requests) == 6
    grader(pictures(), ["a", "b"])  # known answers cost nothing


def test_no_key_and_no_endpoint(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(RewardError, match="needs a key in the environment variable OPENAI_API_KEY"):
        GraderReward("m")
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    with pytest.raises(RewardError, match=r"http://127.0.0.1:9/v1 cannot be reached"):
        GraderReward("m", "http://127.0.0.1:9/v1", retries=0)(pictures(1, 1), ["a"])


@pytest.mark.parametrize(
    "status, content",
    [
        (401, "no"),
        (404, "no"),
        (418, "no"),
        (200, answered(f"invalid key {SECRET}")),
        (200, answered(json.dumps({"overall_score": SECRET}))),
        (200, {"error": {"message": f"credit of {SECRET} is used up"}}),
    ],
)
def test_no_message_or_traceback_holds_the_key(endpoint: Endpoint, url: str, status: int, content: Any):
    endpoint.status = lambda count: status
    endpoint.body = lambda request: content
    endpoint.refusal = f"not with Bearer {SECRET}"
    with pytest.raises(RewardError) as error:
        GraderReward("m", url)(pictures(1, 1), ["a"])
    assert "…" in str(error.value)
    assert SECRET not in "".join(traceback.format_exception(error.value))


def test_a_key_is_taken_without_the_line_break_after_it(
    endpoint: Endpoint, url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OPENAI_API_KEY", f" {SECRET}\n")
    GraderReward("m", url)(pictures(1, 1), ["a"])
    assert endpoint.keys == [f"Bearer {SECRET}"]


@pytest.mark.parametrize("key", [f"{SECRET}\n{SECRET}", f"{SECRET} {SECRET}", f"{SECRET}é"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(key: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(
        RewardError, match="the key in the environment variable OPENAI_API_KEY holds spaces"
    ) as error:
        GraderReward("m", "http://127.0.0.1:9/v1")
    assert SECRET not in "".join(traceback.format_exception(error.value))


@pytest.mark.parametrize(
    "address", ["127.0.0.1:9/v1", "http://[x", "http://", "http://a b/v1", "http://a:b/v1"]
)
def test_a_malformed_address_is_told_at_once(address: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    with pytest.raises(
        RewardError, match=r"grader's address '.*' is malformed: expected for example http://local"
    ):
        GraderReward("m", address)
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    with pytest.raises(RewardError, match=r"grader's address '.*', of OPENAI_BASE_URL, is malformed"):
        GraderReward("m")


def test_a_grader_without_a_model_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    for given in ("grader:", "0.5 * grader: ", "min(grader:, grader:m)"):
        with pytest.raises(ValueError, match="names no model after 'grader:'"):
            load_reward(given)
    with pytest.raises(RewardError, match="the grader has no model: name one, for example grader:"):
        GraderReward(" ")


def test_an_address_without_v1_is_told_in_the_endpoints_words(endpoint: Endpoint, url: str):
    endpoint.status = lambda count: 404
    endpoint.refusal = {"detail": "Not Found"}
    with pytest.raises(RewardError, match=r"knows no model 'm', or the address lacks /v1: Not Found"):
        GraderReward("m", url.removesuffix("/v1"))(pictures(1, 1), ["a"])
    with pytest.raises(RewardError, match=r"knows no model 'm': Not Found"):
        GraderReward("m", url)(pictures(1, 1), ["a"])


def test_an_error_in_an_answer_of_status_200_is_told(endpoint: Endpoint, url: str):
    endpoint.body = lambda request: {"error": {"message": "credit is used up", "code": 402}}
    with pytest.raises(RewardError, match="answered with an error: credit is used up"):
        GraderReward("m", url)(pictures(1, 1), ["a"])


@pytest.mark.parametrize("headers", [{"Content-Length": "9999"}, {"Content-Encoding": "gzip"}])
def test_a_broken_answer_is_not_an_endpoint_out_of_reach(
    endpoint: Endpoint, url: str, headers: dict[str, str]
):
    endpoint.headers = headers
    with pytest.raises(RewardError, match="broke off or damaged its answer") as error:
        GraderReward("m", url, retries=0)(pictures(1, 1), ["a"])
    assert "reached" not in str(error.value)


def test_an_answer_that_never_ends_is_not_waited_for(endpoint: Endpoint, url: str):
    """A space now and then keeps every single read within its time."""
    endpoint.spaces = 100
    start = time.monotonic()
    with pytest.raises(RewardError, match=r"did not answer in time \(0.5 s\)"):
        GraderReward("m", url, retries=1, timeout=0.5)(pictures(1, 1), ["a"])
    assert time.monotonic() - start < 5
    assert len(endpoint.requests) == 2


def test_an_endpoint_that_wants_to_be_left_alone_for_long_is_not_asked_again(endpoint: Endpoint, url: str):
    endpoint.status = lambda count: 429
    endpoint.pause = "3600000"
    with pytest.raises(RewardError, match="status 429"):
        GraderReward("m", url, retries=3)(pictures(1, 1), ["a"])
    assert len(endpoint.requests) == 1


def test_nothing_more_is_asked_after_an_interruption(endpoint: Endpoint, url: str, tmp_path: Path):
    answers = itertools.count()

    def interrupting(request: dict[str, Any]) -> dict[str, Any]:
        first = next(answers) == 0  # of two that come at the same time too
        time.sleep(0.3)
        if first:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
        return grades(request)

    endpoint.body = interrupting
    grader = GraderReward("m", url, cache=tmp_path, parallel=2)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # shells ignore it in the background
    try:
        with pytest.raises(KeyboardInterrupt):
            grader(pictures(20, 1), ["a"])
    finally:
        signal.signal(signal.SIGINT, before)
    asked = len(endpoint.requests)
    assert asked <= 4
    time.sleep(0.5)
    assert len(endpoint.requests) == asked == grader.asked == len(list(tmp_path.glob("*.json")))


def test_graders_that_share_a_cache_do_not_disturb_each_other(endpoint: Endpoint, url: str, tmp_path: Path):
    together = threading.Barrier(2)

    def at_once(request: dict[str, Any]) -> dict[str, Any]:
        together.wait(5)
        return grades(request)

    endpoint.body = at_once

    def run() -> torch.Tensor:
        grader = GraderReward("m", url, cache=tmp_path, parallel=1)
        return torch.stack([grader(torch.full((1, 1, 1, 3, 8, 8), red / 40), ["a"]) for red in range(40)])

    with ThreadPoolExecutor(2) as pool:
        first, second = (future.result() for future in [pool.submit(run) for _ in range(2)])
    torch.testing.assert_close(first, second)
    assert len(list(tmp_path.iterdir())) == len(list(tmp_path.glob("*.json"))) == 40


def test_a_cache_that_can_be_no_folder_is_refused(endpoint: Endpoint, url: str, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RewardError, match=r"answers cannot be kept in .*file.answers.*grader\.cache"):
        GraderReward("m", url, cache=tmp_path / "file" / "answers")
    assert not endpoint.requests


def test_grades_that_cannot_be_kept_count_and_are_warned_of_once(
    endpoint: Endpoint, url: str, tmp_path: Path
):
    cache = tmp_path / "answers"
    grader = GraderReward("m", url, cache=cache)
    cache.rmdir()
    cache.write_text("")
    with pytest.warns(
        UserWarning, match=r"grades are not kept, and will be paid for again .*grader\.cache"
    ) as told:
        scores = [grader(pictures(), [first, "c"]) for first in "ab"]
    assert len(told) == 1
    torch.testing.assert_close(scores[1], torch.arange(6.0).reshape(3, 2), atol=0.02, rtol=0)


FIVES = dict.fromkeys(ASPECTS, 5)


@pytest.mark.parametrize(
    "kept",
    [
        "{",
        "NaN",
        "\0",
        "[" * 200_000,
        '{"overall_score": 7}',
        json.dumps({**FIVES, "overall_score": 99}),
        json.dumps({**FIVES, "overall_score": float("nan")}),
    ],
    ids=range(7),
)
def test_a_kept_answer_that_is_none_is_asked_for_anew(
    endpoint: Endpoint, url: str, tmp_path: Path, kept: Any
):
    GraderReward("m", url, cache=tmp_path)(pictures(2, 1)[1:], ["a"])
    (file,) = tmp_path.iterdir()
    good = file.read_text()
    file.write_text(kept)
    scores = GraderReward("m", url, cache=tmp_path)(pictures(2, 1)[1:], ["a"])
    assert scores.item() == pytest.approx(1, abs=0.02)
    assert len(endpoint.requests) == 2
    assert file.read_text() == good


@pytest.mark.parametrize(
    "name, words, status",
    [
        ("temperature", "Unsupported value: 'temperature' does not support 0 with this model", 400),
        ("response_format", "This response_format type is unavailable now", 400),
        ("response_format", "Only text is answered, no JSON_SCHEMA", 422),
    ],
)
def test_what_an_endpoint_refuses_is_left_out(
    endpoint: Endpoint, url: str, name: str, words: str, status: int
):
    endpoint.refuse(name, words, status)
    grader = GraderReward("m", url, parallel=1)
    scores = grader(pictures(2, 1), ["a"])
    torch.testing.assert_close(scores, torch.tensor([[0.0], [1.0]]), atol=0.02, rtol=0)
    assert [name in request for request in endpoint.requests] == [True, False, False]
    other = {"temperature": "response_format", "response_format": "temperature"}[name]
    assert all(other in request for request in endpoint.requests)
    told = "overall_score" in endpoint.requests[-1]["messages"][0]["content"]
    assert told == (name == "response_format")  # in words, where there is no schema
    assert grader.asked == 2


def test_an_answer_in_a_fence_or_in_parts_is_understood(endpoint: Endpoint, url: str):
    text = json.dumps({**dict.fromkeys(ASPECTS, 5), "overall_score": 7.5})
    parts: Any = [{"type": "text", "text": text[:20]}, {"type": "text", "text": text[20:]}]
    for content in (f"```json\n{text}\n```", f"Here you are:\n{text}", parts):
        endpoint.body = lambda request, content=content: answered(content)
        assert GraderReward("m", url)(pictures(1, 1), ["a"]).item() == 7.5


def test_trying_what_fits_into_memory_asks_nobody(
    endpoint: Endpoint, url: str, tiny_prior_folder: Path, tmp_path: Path
) -> None:
    """Three prompts, two candidates, one step: six questions, and the budget holds no more."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red apple\na green car\na black backpack\n")
    told = ["--prompts", str(prompts), "--prior", str(tiny_prior_folder), "--steps", "1", "--candidates", "2"]
    asked = ["--reward", "grader:judge", "--grader.url", url, "--grader.budget", "6"]
    assert main(["image", *told, *asked, "--device", "cpu", "--out", str(tmp_path / "run")]) == 0
    assert len(endpoint.requests) == 6
