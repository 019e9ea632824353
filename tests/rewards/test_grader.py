"""The grader against a real server on this machine, which answers like an OpenAI-compatible endpoint, or badly."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rewardsds.rewards.base import RewardError
from rewardsds.rewards.grader import ASPECTS, GraderReward

pytest.importorskip("openai")
SECRET = "sk-not-to-be-written-anywhere"


class Endpoint:
    """Grades pictures by how red they are. `status` and `body` change what it answers; `requests` are kept."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.status: Callable[[int], int] = lambda count: 200
        self.body: Callable[[dict[str, Any]], Any] = grades
        self.refusal = "no"
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
                    endpoint.body(request) if status == 200 else {"error": {"message": endpoint.refusal}}
                )
                text = content if isinstance(content, str) else json.dumps(content)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Retry-After-Ms", "1")
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, format: str, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        server.server_close()


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
    endpoint.refusal = f"temperature: only 1 is supported by m;\n your key {SECRET} may use it {'x' * 400}"
    with pytest.raises(RewardError) as error:
        GraderReward("m", url)(pictures(1, 1), ["a"])
    told = str(error.value)
    assert (
        "answered with status 400: temperature: only 1 is supported by m; your key … may use it xxx" in told
    )
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
