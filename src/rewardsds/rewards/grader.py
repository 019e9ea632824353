"""A vision-language model as the reward: it is shown a picture and its prompt, and grades it.

The five aspects and the overall score are those of Ma et al. (arXiv 2501.09732, appendix).
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import random
import re
import threading
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from concurrent.futures import TimeoutError as TookTooLong
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rewardsds.errors import describe_os_error
from rewardsds.rewards.base import RewardError, UnreachableError

ASPECTS = (
    "accuracy_to_prompt",
    "creativity_and_originality",
    "visual_quality_and_realism",
    "consistency_and_cohesion",
    "emotional_or_thematic_resonance",
)
OVERALL = "overall_score"
INSTRUCTIONS = (
    "You grade pictures that were made from a text. Give each aspect a score from 0 to 10, then an overall score from "
    "0 to 10 that is not simply their mean. Accuracy to the prompt: does the picture show everything that the text "
    "asks for, with the right number, colours and relations, and nothing that contradicts it? Creativity and "
    "originality: is it more than the obvious? Visual quality and realism: light, texture, shape, no artefacts. "
    "Consistency and cohesion: do the parts fit together? Emotional or thematic resonance: does it carry the mood of "
    "the text? A picture may show one object from several sides; grade the object. Be strict and use the whole range."
)
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {name: {"type": "number", "minimum": 0, "maximum": 10} for name in (*ASPECTS, OVERALL)},
    "required": [*ASPECTS, OVERALL],
    "additionalProperties": False,
}
OPTIONS: dict[str, Any] = {
    "temperature": 0,
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "grades", "strict": True, "schema": SCHEMA},
    },
}
"""What a question goes on without where the endpoint refuses it."""
WITHOUT_SCHEMA = (
    f" Answer with a JSON object alone, with these names and numbers: {', '.join((*ASPECTS, OVERALL))}."
)
KEY = "OPENAI_API_KEY"
URL = "OPENAI_BASE_URL"
LONGEST_PAUSE = 60.0
"""Seconds. An endpoint that wants to be left alone for longer is not asked again."""

_T = TypeVar("_T")


class GraderReward:
    """Overall scores, 0 to 10, of a model behind any OpenAI-compatible endpoint. Has no gradient.

    The views of an item are shown side by side in one picture. The key is read from the environment alone
    (OPENAI_API_KEY) and written nowhere. Answers are kept on disk, so that a picture is never paid for twice.
    """

    def __init__(
        self,
        model: str,
        url: str | None = None,
        *,
        cache: Path | None = None,
        budget: int | None = None,
        retries: int = 4,
        timeout: float = 60.0,
        parallel: int = 8,
        client: Any = None,
    ) -> None:
        """model: its name at the endpoint. url: of the endpoint; None: OPENAI_BASE_URL, else OpenAI's.
        cache: folder of answers, made here. budget: questions that this object may ask, answers from the cache not
        counted; a run that is resumed makes a new one.
        retries: of a question, where the endpoint is busy or fails, with growing waits. timeout: seconds from a
        question, or a retry of it, to the end of its answer. parallel: questions at the same time.
        client: an `openai.OpenAI` of your own, whose own retries and timeout do not count.

        Raises RewardError where there is no model, key, address or folder that can be used.
        """
        if not model.strip():
            raise RewardError("the grader has no model: name one, for example grader:gpt-4o-mini")
        self.model = model
        self.__name__ = f"grader:{model}"
        self.url = (url or os.environ.get(URL) or "https://api.openai.com/v1").strip()
        self.cache = cache
        self.budget = budget
        self.retries = retries
        self.timeout = timeout
        self.parallel = parallel
        self.asked = 0
        client = _client(self.url) if client is None else client
        self._client = client.with_options(max_retries=0, timeout=timeout)
        self._known: dict[str, float] = {}
        self._refused: set[str] = set()  # of OPTIONS
        self._unwritten = ""  # why an answer could not be kept
        self._warned = False
        if cache is not None:
            try:
                cache.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise RewardError(
                    f"the grader's answers cannot be kept in {cache} ({describe_os_error(error)}): "
                    "choose another folder with grader.cache"
                ) from None

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """images (N, B, V, 3, H, W) in [0, 1], B prompts → (N, B). Raises RewardError."""
        pixels = (images.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).cpu()
        sheets = torch.cat(list(pixels.unbind(2)), dim=-1)  # N, B, 3, H, V W
        places = [(n, b) for n in range(len(sheets)) for b in range(len(prompts))]
        pictures = {place: _png(sheets[place].permute(1, 2, 0).numpy()) for place in places}
        keys = {place: self._key(pictures[place], prompts[place[1]]) for place in places}
        wanted = {key: place for place, key in keys.items() if self._from_cache(key) is None}
        if self.budget is not None and self.asked + len(wanted) > self.budget:
            raise RewardError(
                f"the grader {self.model} may be asked {self.budget} times and was asked {self.asked} times; "
                f"{len(wanted)} more questions are needed: raise the budget, or lower candidates or reward_steps"
            )
        stop = threading.Event()
        pool = ThreadPoolExecutor(self.parallel)
        answers: list[Future[None]] = []
        try:
            for key, (n, b) in wanted.items():
                answers.append(pool.submit(self._answer, key, pictures[n, b], prompts[b], stop))
            done, _ = wait(answers, return_when=FIRST_EXCEPTION)
        finally:  # also where the user interrupts: what has been asked is paid for, it is waited for and kept
            stop.set()
            pool.shutdown(cancel_futures=True)
            answers = [answer for answer in answers if not answer.cancelled()]
            self.asked += len(answers)
        self._warn_of_unwritten()
        for answer in (*done, *answers):  # the first failure is the reason, others may come of its stop
            answer.result()
        scores = [[self._known[keys[n, b]] for b in range(len(prompts))] for n in range(len(sheets))]
        return torch.tensor(scores, dtype=torch.float32, device=images.device)

    def _answer(self, key: str, picture: bytes, prompt: str, stop: threading.Event) -> None:
        self._keep(key, self._ask(picture, prompt, stop))

    def _ask(self, picture: bytes, prompt: str, stop: threading.Event) -> dict[str, float]:
        """The scores by name. stop: set where nothing is asked again."""
        import openai

        try:
            return self._read(self._content(self._response(picture, prompt, stop)))
        except (openai.OpenAIError, TookTooLong) as error:
            failure = self._failure(error)
        except RewardError:
            raise
        except ValueError:
            failure = RewardError(
                f"the grader's endpoint {self.url} answered what is no JSON: is it OpenAI-compatible?"
            )
        raise failure  # here, where it comes from no other error: the client's may quote the key

    def _response(self, picture: bytes, prompt: str, stop: threading.Event) -> Any:
        """The endpoint's answer, asked for again where it is busy or fails, and without what it refuses."""
        import openai

        tries = 0
        while True:
            options = {name: value for name, value in OPTIONS.items() if name not in self._refused}
            messages = _messages(picture, prompt, in_schema="response_format" in options)
            create = self._client.chat.completions.create
            try:
                return _within(self.timeout, partial(create, model=self.model, messages=messages, **options))
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                refused = {name for name in options if _is_about(error, name)}
                if not refused or stop.is_set():
                    raise
                self._refused |= refused
            except (openai.APIError, TookTooLong) as error:
                pause = _pause(error, tries) if tries < self.retries and _is_retried(error) else None
                if pause is None or stop.wait(pause):
                    raise
                tries += 1

    def _failure(self, error: Exception) -> RewardError:
        """What an error of the client means."""
        import openai

        where, said = f"the grader's endpoint {self.url}", self._said(error)
        if isinstance(error, (TookTooLong, openai.APITimeoutError)):
            return UnreachableError(f"{where} did not answer in time ({self.timeout:g} s)")
        if isinstance(error, openai.APIConnectionError):
            reason = f" ({self._quoted(error.__cause__)})" if error.__cause__ else ""
            if type(error.__cause__).__name__ in ("RemoteProtocolError", "ReadError", "DecodingError"):
                return UnreachableError(f"{where} broke off or damaged its answer{reason}")
            return UnreachableError(f"{where} cannot be reached{reason}")
        if isinstance(error, openai.AuthenticationError):
            return UnreachableError(f"{where} refuses the key in {KEY}{said}")
        if isinstance(error, openai.NotFoundError):
            address = "" if re.search(r"/v\d", self.url) else ", or the address lacks /v1"
            return UnreachableError(f"{where} knows no model {self.model!r}{address}{said}")
        if isinstance(error, openai.APIStatusError):
            kind = UnreachableError if _is_refused(error) else RewardError
            again = ", again and again" if _is_retried(error) else ""
            return kind(f"{where} answered with status {error.status_code}{again}{said}")
        return RewardError(f"the grader {self.model} failed: {type(error).__name__}")

    def _said(self, error: object) -> str:
        """The endpoint's own message, of an error or of its body."""
        body = getattr(error, "body", error)
        if isinstance(body, Mapping):
            body = body.get("message") or body.get("detail") or body.get("error")
        text = self._quoted(body) if body and not isinstance(body, Exception) else ""
        return f": {text}" if text else ""

    def _quoted(self, words: object, most: int = 200) -> str:
        """Words from outside in a line, shortened, and without the key, which some endpoints quote."""
        text = " ".join(str(words).split())
        for key in (self._client.api_key, os.environ.get(KEY, "").strip()):
            text = text.replace(key, "…") if key else text
        return text[:most]

    def _content(self, response: Any) -> str:
        """What the model said; RewardError where the endpoint answered with an error in place of it."""
        error = getattr(response, "error", None)
        if error:
            raise RewardError(f"the grader's endpoint {self.url} answered with an error{self._said(error)}")
        try:
            said = response.choices[0].message.content
        except (AttributeError, IndexError, KeyError, TypeError):
            said = None
        if isinstance(said, list):  # in parts
            said = "".join(str(part.get("text") or "") for part in said if isinstance(part, Mapping))
        return str(said)

    def _read(self, said: str) -> dict[str, float]:
        """The scores in an answer, which may have a fence or words around them; RewardError where it is none."""
        try:
            answer: Any = json.loads(said[said.find("{") : said.rfind("}") + 1])
            scores = {name: _number(answer[name]) for name in (*ASPECTS, OVERALL)}
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            raise RewardError(
                f"the grader {self.model} answered no grades: {self._quoted(said, 80)!r}; "
                "it must be able to answer in a JSON schema"
            ) from None
        beyond = [name for name, score in scores.items() if not 0 <= score <= 10]
        if beyond:
            raise RewardError(
                f"the grader {self.model} gave {beyond[0]} {scores[beyond[0]]}: scores go from 0 to 10"
            )
        return scores

    def _key(self, picture: bytes, prompt: str) -> str:
        parts = (self.model, self.url, INSTRUCTIONS, prompt)
        return hashlib.sha256("\0".join(parts).encode() + b"\0" + picture).hexdigest()

    def _from_cache(self, key: str) -> float | None:
        """The score of a kept answer; None where there is none that can be used: it is asked for anew."""
        if key not in self._known and self.cache is not None:
            with suppress(OSError, RewardError):
                kept = (self.cache / f"{key}.json").read_text(encoding="utf-8", errors="replace")
                self._known[key] = self._read(kept)[OVERALL]
        return self._known.get(key)

    def _keep(self, key: str, answer: dict[str, float]) -> None:
        self._known[key] = answer[OVERALL]
        if self.cache is None:
            return
        partial = self.cache / f"{key}-{uuid.uuid4().hex}.partial"  # another process may ask the same
        try:
            partial.write_text(json.dumps(answer) + "\n", encoding="utf-8")
            partial.replace(self.cache / f"{key}.json")
        except OSError as error:
            self._unwritten = self._unwritten or describe_os_error(error)
            with suppress(OSError):
                partial.unlink(missing_ok=True)

    def _warn_of_unwritten(self) -> None:
        """Once: the grades are paid for and count all the same."""
        if self._unwritten and not self._warned:
            self._warned = True
            warnings.warn(
                f"grades are not kept, and will be paid for again ({self._unwritten}): make room in the folder "
                f"{self.cache}, or choose another with grader.cache",
                stacklevel=3,
            )


def _client(url: str) -> Any:
    try:
        import openai
    except ImportError as error:
        raise RewardError("the grader needs the package openai: pip install 'rewardsds[grader]'") from error
    key = os.environ.get(KEY, "").strip()
    if not key:
        raise RewardError(
            f"the grader needs a key in the environment variable {KEY}; a local endpoint takes any word"
        )
    if re.fullmatch("[!-~]+", key) is None:
        raise RewardError(
            f"the key in the environment variable {KEY} holds spaces, line breaks or letters beyond ASCII, and cannot "
            "be sent: set it again"
        )
    if not _is_address(url):
        origin = f", of {URL}," if url == os.environ.get(URL, "").strip() else ""
        raise RewardError(
            f"the grader's address {url!r}{origin} is malformed: expected for example http://localhost:8000/v1"
        )
    return openai.OpenAI(api_key=key, base_url=url)


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port  # which raises where it is no number
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(host) and re.search(r"\s", url) is None


def _messages(picture: bytes, prompt: str, in_schema: bool) -> list[dict[str, Any]]:
    url = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    return [
        {"role": "system", "content": INSTRUCTIONS + ("" if in_schema else WITHOUT_SCHEMA)},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": f"The text: {prompt}"},
                {"type": "image_url", "image_url": {"url": url}},
            ],
        },
    ]


def _within(seconds: float, call: Callable[[], _T]) -> _T:
    """What a call returns or raises; TookTooLong where it has not ended in time.

    The client's own timeout is of each read, and an endpoint that sends a space now and then has a read without end.
    The call is then left to its thread, which holds up no exit.
    """
    answer: Future[_T] = Future()

    def work() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return answer.result(seconds)


def _is_about(error: Any, option: str) -> bool:
    """Whether an endpoint's refusal names one of OPTIONS."""
    text = f"{error} {error.body}".lower()
    return option in text or (option == "response_format" and "json_schema" in text)


def _is_refused(error: Any) -> bool:
    """Whether no waiting helps: no permission, or nothing left to pay with."""
    return error.status_code in (402, 403) or error.code == "insufficient_quota"


def _is_retried(error: Any) -> bool:
    """Whether an endpoint is asked again after an error of the client."""
    import openai

    if not isinstance(error, openai.APIStatusError):
        return isinstance(error, (TookTooLong, openai.APIConnectionError))
    if _is_refused(error) or error.response.headers.get("x-should-retry") == "false":
        return False
    return error.status_code in (408, 409, 429) or error.status_code >= 500


def _pause(error: Any, tries: int) -> float | None:
    """Seconds until an endpoint is asked again: as it says, else growing ones; None: it is not."""
    headers = error.response.headers if hasattr(error, "response") else {}
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        with suppress(KeyError, ValueError):  # not said, or as a date
            seconds = max(0.0, float(headers[name]) * unit)
            return seconds if seconds <= LONGEST_PAUSE else None
    return min(8.0, 0.5 * 2**tries) * random.uniform(0.75, 1.0)


def _png(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def _number(value: object) -> float:
    """Of an answer, which may hold it as text. Raises TypeError for yes and no, which Python takes for 1 and 0."""
    if isinstance(value, bool):
        raise TypeError(value)
    return float(value)  # pyright: ignore[reportArgumentType]
