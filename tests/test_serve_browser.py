"""The service's page in a real browser: token, upload, progress, report, errors."""

import pytest
from browser import open_browser
from selenium.webdriver.support.ui import WebDriverWait
from service import running
from videos import encode

STATES = """window.states = []; new MutationObserver(() =>
  window.states.push(document.getElementById("state").textContent))
  .observe(document.getElementById("state"), { childList: true });"""


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    folder = tmp_path_factory.mktemp("service")
    with running(folder, "--max-mb", "2", token="secret") as service:
        yield service


@pytest.fixture(scope="module")
def video(tmp_path_factory, clip_of_people):
    """Eight frames of a demo video."""
    path = tmp_path_factory.mktemp("video") / "hand_fused.mp4"
    encode(path, clip_of_people("hand_fused", 8)[..., ::-1])
    return path


@pytest.fixture
def browser(tmp_path, service):
    with open_browser(tmp_path / "profile") as browser:
        browser.get(service.url)
        yield browser


def shown(browser, name: str) -> bool:
    return browser.find_element("id", name).is_displayed()


def wait(browser, condition):
    return WebDriverWait(browser, 180, 0.1).until(condition)


def send(browser, path) -> None:
    browser.find_element("id", "file").send_keys(str(path))


def test_a_video_gets_its_report(browser, service, video):
    browser.find_element("id", "token").send_keys("secret")
    browser.execute_script(STATES)
    send(browser, video)
    wait(browser, lambda b: shown(b, "work"))
    assert not shown(browser, "drop") and not shown(browser, "error")
    assert browser.find_element("id", "name").text == "hand_fused.mp4"
    wait(browser, lambda b: shown(b, "done"))
    states = browser.execute_script("return window.states")
    assert states[0] == "Uploading" and any(s.startswith("Scoring: frame ") for s in states)
    assert any(s.endswith(" of 8") for s in states)
    assert browser.find_element("id", "score").text == "0.500"
    assert browser.find_element("id", "people").text == "2"
    assert shown(browser, "drop") and not shown(browser, "work")
    browser.find_element("id", "page").click()
    wait(browser, lambda b: "/reports/" in b.current_url)
    assert browser.find_element("css selector", "h1").text == "hand_fused.mp4"
    seconds = 'return document.querySelector("video").duration'
    assert wait(browser, lambda b: b.execute_script(seconds)) > 0.2
    assert browser.execute_script("return getComputedStyle(document.body).maxWidth") == "1440px"
    browser.find_element("partial link text", "All videos").click()
    assert len(browser.find_elements("css selector", "td.name a")) == 1
    assert [line for line in browser.get_log("browser") if line["level"] == "SEVERE"] == []


def test_a_wrong_token_says_where_to_look(browser, video):
    browser.find_element("id", "token").send_keys("guess")
    send(browser, video)
    wait(browser, lambda b: shown(b, "error"))
    assert "token" in browser.find_element("id", "error").text
    assert shown(browser, "drop")
    focused = browser.execute_script("return document.activeElement.id")
    assert focused == "token"


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"no video at all", "not a video"), (b"\0" * (2**21 + 1), "larger than 2,097,152 bytes")],
)
def test_what_cannot_be_scored_says_why(browser, video, tmp_path, content, words):
    browser.find_element("id", "token").send_keys("secret")
    (tmp_path / "a.mp4").write_bytes(content)
    send(browser, tmp_path / "a.mp4")
    wait(browser, lambda b: shown(b, "error"))
    assert words in browser.find_element("id", "error").text
    send(browser, video)
    wait(browser, lambda b: shown(b, "done"))
    assert not shown(browser, "error")


def test_it_can_be_cancelled(browser, service, video):
    browser.find_element("id", "token").send_keys("secret")
    send(browser, video)
    wait(browser, lambda b: shown(b, "work"))
    browser.find_element("id", "cancel").click()
    wait(browser, lambda b: shown(b, "error"))
    assert browser.find_element("id", "error").text == "Cancelled."
    wait(browser, lambda _: service.ask("/health")[1]["queue"] == 0)
