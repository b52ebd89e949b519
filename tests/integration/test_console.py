"""The console in a real browser: every view works by keyboard and mouse, offline, and axe objects to nothing.

The service answers from one bundle in two score modes, as its two arms.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from tests.fake_service import write_bundle
from tests.fake_statements import fake_statements
from tests.redis_process import free_port
from tests.service_process import HTTP

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian: apt-get install chromium)")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"]
ARMS = {"a": "trie", "b": "full"}
FUSION = {
    f"{task}.{name}": value
    for task in ("sequential", "topn")
    for name, value in {
        "graph": 0.5,
        "popularity": 0.1,
        "channel.follows": 0.9,
        "channel.text.catalogue.sparse": 0.5,
    }.items()
}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("console")
    told = fake_statements(folder / "data")
    bundle = write_bundle(folder / "bundle", statements=told, fusion=FUSION, metrics={"HR@10": 0.123})
    port = free_port()
    command = [sys.executable, "-m", "tests.fake_server", "--bundle", str(bundle), "--port", str(port)]
    environment = os.environ | {"RDREC_SECOND_SCORE_MODE": "full", "RDREC_SECOND_MODE": "on_request"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                if HTTP.get(f"{url}/health/ready").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        else:
            pytest.fail("the service did not become ready")
        yield url
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """The console with its first user open; any error on the page or request to elsewhere fails the test."""
    context = browser.new_context(viewport={"width": 1300, "height": 900}, color_scheme="light")
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=address)
    page = context.new_page()
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("console", lambda line: troubles.append(line.text) if line.type == "error" else None)
    page.on("request", lambda r: None if r.url.startswith(address) else troubles.append(f"asked {r.url}"))
    page.goto(f"{address}/")
    expect(page.locator("#results .title")).to_have_count(8)
    yield page
    context.close()
    assert troubles == []


def titles(page: Page, panel: int = 0) -> list[str]:
    return page.locator("#results section").nth(panel).locator(".title").all_inner_texts()


def test_a_user_is_opened_by_keyboard_and_shown_as_cards_with_three_signals(page: Page) -> None:
    page.locator("#user").focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("u0003")
    page.keyboard.press("Enter")
    expect(page.locator("#history-source")).to_have_text("5 items, from bundle")
    expect(page.locator("#history .card").first).to_contain_text("Toy 7")
    assert titles(page)[0] == "Toy 8"
    assert page.locator("#results .bar").count() == 24
    assert page.locator("#results .bar.text[title='Words: says nothing']").count() == 3  # not alike to items 3 to 7
    chances = [int(text.replace("< 1", "0").split()[0]) for text in page.locator("#results .chance").all_inner_texts()]
    assert chances == sorted(chances, reverse=True)
    assert chances[0] > chances[-1]


def test_adding_an_interaction_changes_the_list(page: Page) -> None:
    page.locator("#user").fill("u0005")
    page.get_by_role("button", name="Open").click()
    expect(page.locator("#results .title").first).to_have_text("i0010")
    page.locator("#add-item").fill("Toy 2")
    expect(page.locator("#items option").first).to_have_attribute("value", "i0002")
    page.locator("#add-item").fill("i0022")
    page.get_by_role("button", name="Add").click()
    expect(page.locator("#history .card.new")).to_contain_text("Toy 22")
    expect(page.locator("#results .title").first).to_have_text("Toy 23")


def test_why_opens_and_closes_the_explanation(page: Page) -> None:
    button = page.locator("#results li").first.get_by_role("button", name="why")
    button.click()
    opened = page.locator("#results li").first.locator(".why")
    expect(opened.locator(".sentence")).to_have_text("Customers who chose Toy 4 often choose Toy 5 too.")
    expect(opened).to_contain_text("Toy 4")
    expect(button).to_have_attribute("aria-expanded", "true")
    button.click()
    expect(opened).to_have_count(0)


def test_words_move_the_list_and_unknown_ones_are_told(page: Page) -> None:
    before = titles(page)
    page.locator("#prefer").fill("something GREEN, please")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator("#message")).to_contain_text("Moved by: something GREEN, please")
    expect(page.locator("#results .tag").first).to_have_text("with your words")
    assert titles(page) != before
    page.locator("#prefer").fill("mauve")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator("#message")).to_contain_text("No item's text holds these words")
    assert titles(page) == before


def test_similar_items_open_and_close_below_an_item(page: Page) -> None:
    place = page.locator("#results .list > li").first
    button = place.get_by_role("button", name="similar")
    button.click()
    opened = place.locator(".near")
    expect(opened.get_by_role("listitem")).to_have_count(2)  # user 0: item 5, which item 6 follows; 10 is of its colour
    expect(opened).to_contain_text("Toy 6")
    expect(opened).to_contain_text("i0010")
    expect(button).to_have_attribute("aria-expanded", "true")
    button.click()
    expect(opened).to_have_count(0)


def test_why_shows_statements_as_chips_and_the_caution(page: Page) -> None:
    page.locator("#user").fill("u0003")
    page.get_by_role("button", name="Open").click()
    first = page.locator("#results li").first
    expect(first.locator(".title")).to_have_text("Toy 8")
    first.get_by_role("button", name="why").click()
    expect(first.locator(".sentence")).to_have_text(
        "You liked the sturdy lid of Toy 7; 2 of 3 buyers say the same of Toy 8."
    )
    expect(first.locator(".chip")).to_have_text(
        ["sturdy lid1 of 1 reviews · this user", "sturdy lid2 of 3 reviews · buyers"]
    )
    expect(first.locator(".caution")).to_have_text("One of 3 buyers finds it too small.")
    expect(first).to_contain_text("Likes the sturdy lid.")


def test_side_by_side_candidates_and_curl(page: Page, address: str) -> None:
    page.locator("#compare").select_option("fusion")
    expect(page.locator("#results section")).to_have_count(2)
    page.get_by_label("Best of candidates").check()
    page.locator("#candidates").fill("i0001 i0030,i0007")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator("#results section").first.locator(".title")).to_have_count(3)
    assert titles(page, 1)[0] == "Toy 7"
    page.get_by_role("button", name="Copy as curl").click()
    expect(page.locator("#message")).to_have_text("Copied.")
    command = page.evaluate("navigator.clipboard.readText()")
    answer = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True).stdout
    assert '"item_id":"i0007"' in answer


def test_the_arms_side_by_side_mark_what_one_of_them_alone_names(page: Page) -> None:
    page.locator("#compare").focus()
    page.keyboard.press("End")
    arms = [page.get_by_role("region", name=re.compile(f"^Arm {arm}: fake-.*, {mode}$")) for arm, mode in ARMS.items()]
    for arm in arms:
        expect(arm.get_by_role("heading")).to_have_text(re.compile("^Arm . *"))
        expect(arm.get_by_role("listitem")).to_have_count(8)
    lists = [set(titles(page, 0)), set(titles(page, 1))]
    both = lists[0] & lists[1]
    assert 0 < len(both) < 8
    expect(page.locator("#message")).to_have_text(re.compile(f", {len(both)} of them in both lists$"))
    for arm, named in zip(arms, lists, strict=True):
        marked = arm.get_by_role("listitem").filter(has_text="only here").locator(".title").all_inner_texts()
        assert set(marked) == named - both

    why = arms[1].get_by_role("listitem").first.get_by_role("button", name="why")
    with page.expect_request("**/explain") as asked:
        why.focus()
        page.keyboard.press("Enter")
    assert asked.value.post_data_json["arm"] == "b"
    expect(arms[1].locator(".why")).to_have_count(1)


def test_one_arm_is_not_offered_for_comparison(page: Page) -> None:
    offered = ["nothing", "all signals, model alone", "with the filter, without"]
    expect(page.locator("#compare option")).to_have_text([*offered, "arm a and arm b"])

    def without_second(route: Route) -> None:
        model = route.fetch().json()
        del model["arms"]["b"]
        route.fulfill(json=model)

    page.route("**/v1/model", without_second)
    page.reload()
    expect(page.locator("#results .title")).to_have_count(8)
    expect(page.locator("#compare option")).to_have_text(offered)


def test_an_item_is_added_found_by_a_filter_compared_and_taken_out_of_stock(page: Page, address: str) -> None:
    page.locator("#item-id").fill("lamp/1")
    page.locator("#item-title").fill("Blue lamp")
    page.locator("#item-brand").fill("Lux")
    page.locator("#item-categories").fill("Home, Lamps")
    page.get_by_role("button", name="Put item").click()
    expect(page.locator("#item-told")).to_have_text("Blue lamp: in stock, placed by its words.")
    page.locator("#where").fill('{"brand": {"in": ["Lux", "Zeta"]}}')
    page.locator("#compare").select_option("where")
    expect(page.locator("#results section")).to_have_count(2)
    expect(page.get_by_role("region", name="With the filter").get_by_text("Blue lamp")).to_be_visible()
    page.locator("#where").fill('{"category": "Lamps"}')
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.get_by_role("region", name="With the filter").locator(".title")).to_have_text(["Blue lamp"])
    expect(page.get_by_role("region", name="Without").locator(".title")).to_have_count(8)
    page.get_by_role("button", name="Out of stock").click()
    expect(page.locator("#item-told")).to_contain_text("out of stock")
    expect(page.get_by_role("region", name="With the filter").locator(".title")).to_have_count(0)
    page.locator("#compare").select_option("")
    page.locator("#where").fill("{brand: Lux}")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator("#message")).to_contain_text("The filter is no JSON")
    httpx.delete(f"{address}/items/lamp%2F1").raise_for_status()


def test_a_problem_is_told_in_words(browser: Browser, address: str) -> None:
    page = browser.new_page()
    page.goto(f"{address}/")
    expect(page.locator("#results .title")).to_have_count(8)
    page.locator("#n-items").evaluate("field => { field.form.noValidate = true; field.value = 101 }")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator("#message")).to_contain_text("n_items: Input should be less than or equal to 100")
    page.close()


def test_the_status_page_shows_the_bundle_and_draws_live_charts(page: Page) -> None:
    page.get_by_role("link", name="Status").click()
    expect(page.locator("#model")).to_contain_text("fake-")
    expect(page.locator("#model")).to_contain_text(re.compile("Arm bfake-.*, full"))
    expect(page.locator("#metrics")).to_contain_text("0.1230")
    expect(page.locator("#fusion")).to_contain_text("topn.channel.follows0.9000")
    expect(page.locator("#charts polyline").first).to_have_attribute("points", re.compile(r"\d \d"), timeout=15_000)
    assert float(page.locator("#charts figure").first.locator("output").inner_text()) > 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", ["recommend", "arms", "status"])
def test_axe_finds_nothing(page: Page, scheme: str, view: str, tmp_path: Path) -> None:
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.evaluate(f"location.hash = '{view}'")
    if view == "arms":
        page.locator("#compare").select_option("arms")
        expect(page.locator("#results .only")).not_to_have_count(0)
    if view != "status":
        page.locator("#results li").first.get_by_role("button", name="why").click()
        expect(page.locator(".why")).to_have_count(1)
        page.locator("#results li").first.get_by_role("button", name="similar").click()
        expect(page.locator(".near")).to_have_count(1)
    page.screenshot(path=str(tmp_path / f"{view}-{scheme}.png"), full_page=True)
    found = Axe().run(page).response["violations"]
    assert [(v["id"], [n["html"] for n in v["nodes"]]) for v in found] == []
