"""The page in a real browser with real speech as the microphone: enrolment, acceptance, another
person, a copy, and noise.

SASV_SCREENSHOTS=FOLDER saves screenshots.
"""

import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from conftest import shared
from sasv.audio import read_audio
from serving import KEY

pytestmark = [pytest.mark.long, pytest.mark.speech]

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), "")
MICROPHONE_RATE = 48_000
SECONDS = 9.0
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1100, "height": 900}


@pytest.fixture(scope="module")
def voices(tmp_path_factory):
    """The input of the microphone: two recordings of a person, one of another person, and noise."""
    corpus = shared("speech", "LibriSpeech") / "test-other"
    speakers = sorted(path for path in corpus.iterdir() if path.is_dir())[:2]
    first, second = sorted(speakers[0].rglob("*.flac"))[:2]
    other = min(speakers[1].rglob("*.flac"))
    folder = tmp_path_factory.mktemp("voices")
    rng = np.random.default_rng(0)
    waves = {
        name: read_audio(path)
        for name, path in (("anna", first), ("again", second), ("other", other))
    }
    waves["noise"] = (0.1 * rng.standard_normal(10 * 16_000)).astype(np.float32)
    for name, wave in waves.items():
        wave = np.resize(wave, int(20 * 16_000))
        soundfile.write(
            folder / f"{name}.wav",
            soxr.resample(wave, 16_000, MICROPHONE_RATE),
            MICROPHONE_RATE,
            subtype="PCM_16",
        )
    return folder


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The address of the demonstration, with the model that comes with sasv."""
    pytest.importorskip("uvicorn", reason="uvicorn is not installed")
    from sasv.commands._serve import served_model
    from sasv.runtime.model import OnnxModel
    from sasv.service.app import create_app, make_service
    from sasv.service.server import Address, listening, make_server
    from sasv.service.settings import Settings
    from sasv.service.state import ServiceState
    from sasv.store import VoiceprintStore
    from sasv.weights.catalogue import DEFAULT

    store = VoiceprintStore(tmp_path_factory.mktemp("store") / "store.db", KEY)
    service = make_service(
        OnnxModel(served_model(DEFAULT), 1),
        store,
        ServiceState(store.database),
        Settings(demo=True),
    )
    place = Address(port=0)
    server = make_server(create_app(service, log=False), place)
    bound = listening(place)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    server.should_exit = True
    thread.join(30)


@pytest.fixture
def page_with(address, voices):
    """A function (voice, options of the context) -> page of a browser with this voice."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright and Chromium")
    if not CHROMIUM:
        pytest.skip("needs Playwright and Chromium")
    with playwright.sync_playwright() as running:
        browsers = []

        def page(voice, **context):
            browser = running.chromium.launch(
                executable_path=CHROMIUM,
                args=[
                    "--no-sandbox",
                    "--use-fake-ui-for-media-stream",
                    "--use-fake-device-for-media-stream",
                    f"--use-file-for-fake-audio-capture={voices / voice}.wav",
                ],
            )
            browsers.append(browser)
            found = browser.new_page(**({"viewport": DESK} | context))
            found.set_default_timeout(30_000)
            found.complaints = []
            found.on("console", lambda said: found.complaints.append(said.text))
            found.on("pageerror", lambda error: found.complaints.append(str(error)))
            found.goto(address)
            found.get_by_text("Model:").wait_for()
            return found

        yield page
        for browser in browsers:
            browser.close()


def picture(page, name):
    """Save a screenshot if requested."""
    folder = os.environ.get("SASV_SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def record(page, seconds=SECONDS):
    """Record from the microphone."""
    page.get_by_role("button", name="Record", exact=True).click()
    page.get_by_role("button", name=f"Stop ({seconds:.0f} s)").wait_for()
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("Recording from the microphone", exact=True).wait_for()
    assert page.locator("#record").inner_text() == "Record"


def outcome(page, button):
    """Press a button, and return the outcome that the page shows."""
    page.evaluate("() => { document.getElementById('outcome').textContent = '' }")
    page.get_by_role("button", name=button).click()
    said = page.locator("#outcome:not(:empty)")
    said.wait_for()
    return said.inner_text()


def test_page_in_a_browser(page_with):
    page = page_with("anna")
    picture(page, "1-empty")
    page.get_by_label("New person").fill("anna")
    page.get_by_role("button", name="Add").click()
    page.get_by_label("anna", exact=False).first.wait_for()
    record(page)
    assert outcome(page, "Enrol with this recording") == "Enrolled"
    ring = page.get_by_role("progressbar", name="Speech enrolled")
    assert int(ring.get_attribute("aria-valuenow")) > 30
    picture(page, "2-enrolled")
    assert page.complaints == []

    page = page_with("again", color_scheme="dark")
    record(page)
    assert outcome(page, "Verify this recording") == "Accepted"
    assert page.get_by_role("meter", name="Is it real speech?").is_visible()
    picture(page, "3-accepted-dark")
    assert outcome(page, "Who is it?") == "It is anna"
    page.get_by_role("button", name="Make a synthetic copy of it").click()
    page.get_by_text("Synthetic copy by the vocoder WORLD", exact=True).wait_for()
    assert outcome(page, "Verify this recording") == "Rejected: not real speech"
    picture(page, "4-copy-dark")
    assert page.complaints == []

    page = page_with("other", viewport=PHONE)
    record(page)
    assert outcome(page, "Verify this recording") == "Rejected: somebody else"
    picture(page, "5-other-phone")
    width = page.evaluate("() => document.documentElement.scrollWidth")
    assert width <= PHONE["width"]

    page = page_with("noise", viewport=PHONE, color_scheme="dark")
    record(page, 4.0)
    assert outcome(page, "Verify this recording") == "No decision"
    assert "No speech" in page.locator("#wrong-list").inner_text()
    picture(page, "6-noise-phone-dark")
    assert outcome(page, "Enrol with this recording") == "The recording cannot be used"
    page.get_by_role("button", name="Delete anna").click()
    page.get_by_text("Nobody yet").wait_for()
    picture(page, "7-deleted")


def test_the_page_by_keyboard_alone(page_with):
    page = page_with("anna")
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.id") == "person"
    page.keyboard.type("ben")
    page.keyboard.press("Enter")
    page.get_by_text("ben is chosen").wait_for()
    reached = []
    for _ in range(6):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate("() => document.activeElement.id || document.activeElement.name")
        )
    assert {"record", "file"} <= set(reached)
    unnamed = page.evaluate(
        "() => [...document.querySelectorAll('button, input')].filter((one) => "
        "!(one.textContent || one.labels?.length || one.ariaLabel)).length"
    )
    assert unnamed == 0
    page.get_by_role("button", name="Delete ben").press("Enter")
    page.get_by_text("Nobody yet").wait_for()
