// Entry of the viewer: reads the data, follows the address, and refreshes data that is served.

import { el, visible } from "./text.js";
import { line } from "./viewer_dom.js";
import { setUpTheme } from "./theme.js";
import { openStore } from "./viewer_data.js";
import { NO_FILTER, readFilter, selectRows, writeFilter } from "./viewer_filter.js";
import { OverviewView } from "./viewer_overview.js";
import { RowsView } from "./viewer_rows.js";
import { GroupView, TrajectoryView } from "./viewer_trajectory.js";
import { CompareView, PairView } from "./viewer_compare.js";
import { comparableSides, comparisonAcross } from "./viewer_pairs.js";

const POLL_MS = 3000;
const WRITE_MS = 250;

/** What the views share: the store, addresses, the rows of a filter, and places to return to. */
class App {
  constructor(store) {
    this.store = store;
    this.main = document.getElementById("main");
    this.places = new Map();
    this.view = null;
    this.selected = { key: null, rows: null };
    document
      .getElementById("source")
      .addEventListener("change", (event) => this.changeSource(Number(event.target.value)));
    addEventListener("hashchange", () => this.follow());
    addEventListener("keydown", (event) => this.key(event));
    document.querySelector(".skip").addEventListener("click", (event) => {
      // The address stays that of the view.
      event.preventDefault();
      this.main.focus();
    });
    // Two folders were given to be compared.
    if (!location.hash && comparisonAcross(store)) history.replaceState(null, "", "#/compare");
    this.follow();
  }

  /** The address of a page of a source. */
  address(source, page, query = "") {
    return `#/${source.number}/${page}${query ? `?${query}` : ""}`;
  }

  /** The rows that a filter, written as a query, selects; the last selection is kept. */
  rows(source, query) {
    const key = `${source.number}?${query}`;
    if (this.selected.key !== key || this.selected.source !== source)
      this.selected = { key, source, rows: selectRows(source, readFilter(query)) };
    return this.selected.rows;
  }

  /**
   * Put an address that is already shown into the address bar: at once as one to go back to
   * (`step`), or in place of the last one when no more changes come, as while typing.
   */
  write(address, step) {
    clearTimeout(this.writing);
    this.here = address;
    this.drawTabs(readAddress(address));
    if (!step) this.writing = setTimeout(() => history.replaceState(null, "", address), WRITE_MS);
    else if (location.hash !== address) history.pushState(null, "", address);
  }

  /** Show the view of the address. */
  follow() {
    const address = readAddress(location.hash);
    clearTimeout(this.writing);
    this.leave();
    this.here = location.hash;
    const shown = this.shownAs;
    this.shownAs = `${address.page} ${address.source} ${address.id ?? ""}`;
    if (this.view?.navigate && shown === this.shownAs) this.view.navigate(address.query);
    else this.show(this.open(address));
    this.drawTabs(address);
    this.restore();
  }

  open({ page, source: number, id, query }) {
    const source = this.store.sources[number];
    if (page === "compare" && comparableSides(this.store).length) return new CompareView(this, query);
    if (page === "pair") return new PairView(this, query);
    if (source && page === "overview") return new OverviewView(this, source);
    if (source && page === "rows") return new RowsView(this, source, query);
    if (source && page === "row" && id < source.count) return new TrajectoryView(this, source, id, query);
    if (source && page === "group") return new GroupView(this, source, id);
    return {
      title: "Not found",
      element: el(
        "p",
        { class: "note warn" },
        "There is no such page here. ",
        el("a", { href: "#/0/overview" }, "To the overview"),
      ),
    };
  }

  show(view) {
    const first = this.view === null;
    this.view?.close?.();
    this.view = view;
    this.main.replaceChildren(view.element);
    this.main.className = view.element.className.includes("rows-view") ? "fills" : "";
    document.title = `${view.title} – ${visible(this.store.title)} – rsearch view`;
    if (!first) (view.element.querySelector("h1") ?? this.main).focus({ preventScroll: true });
  }

  /** Remember the place in the view that is left, for the way back. */
  leave() {
    if (!this.view || !this.here) return;
    this.places.set(this.here, { window: scrollY, table: this.view.table?.place });
  }

  restore() {
    const place = this.places.get(location.hash);
    if (place?.table && this.view.table) {
      this.view.table.place = place.table;
      this.view.table.link(place.table.active)?.focus({ preventScroll: true });
    }
    scrollTo(0, place?.window ?? 0);
  }

  /** Fill the body of a view once its data is there. */
  async fill(view, body, draw) {
    try {
      const content = await draw();
      body.classList.remove("loading");
      body.replaceChildren(content);
    } catch (error) {
      body.replaceChildren(
        el("p", { class: "note bad" }, "This cannot be shown: ", line(String(error.message ?? error), 1000)),
      );
    }
    if (this.view === view && document.activeElement === this.main)
      body.querySelector("h1")?.focus({ preventScroll: true });
  }

  key(event) {
    if (
      event.ctrlKey ||
      event.metaKey ||
      event.altKey ||
      event.target.closest("input, select, textarea, [role=slider], .scroll-x, .completions")
    )
      return;
    const address = this.view?.keys?.[event.key];
    if (!address) return;
    event.preventDefault();
    location.hash = address;
  }

  changeSource(number) {
    const { page } = readAddress(location.hash);
    const source = this.store.sources[number];
    location.hash =
      page === "rows" ? this.address(source, "rows", firstFilter(source)) : this.address(source, "overview");
  }

  drawTabs({ page, source }) {
    const { sources } = this.store;
    const here = sources[source] ?? sources[0];
    const tabs = [
      ["Overview", this.address(here, "overview"), page === "overview"],
      [
        "Trajectories",
        this.address(here, "rows", firstFilter(here)),
        ["rows", "row", "group"].includes(page),
      ],
      ...(comparableSides(this.store).length > 1
        ? [["Compare", "#/compare", ["compare", "pair"].includes(page)]]
        : []),
    ];
    document
      .getElementById("tabs")
      .replaceChildren(
        ...tabs.map(([label, href, current]) =>
          el("a", { href, "aria-current": current ? "page" : null }, label),
        ),
      );
    const select = document.getElementById("source");
    select.replaceChildren(
      ...sources.map(({ name, number }) =>
        el("option", { value: number, selected: number === here.number }, visible(name).slice(0, 80)),
      ),
    );
    select.parentElement.hidden = sources.length < 2 || ["compare", "pair"].includes(page);
  }

  /** Follow data that has grown, without losing the place. */
  refresh() {
    const place = { window: scrollY, table: this.view.table?.place };
    const focused = document.activeElement;
    const source = this.store.sources[readAddress(location.hash).source];
    if (source) this.view.update?.(source);
    if (place.table) this.view.table.place = place.table;
    scrollTo(0, place.window);
    if (document.activeElement === document.body && focused !== document.body)
      findAlike(this.main, focused)?.focus({ preventScroll: true });
  }
}

/** The link or button that took the place of another one. */
function findAlike(main, element) {
  return [...main.querySelectorAll(element.localName)].find(
    (other) => other.textContent === element.textContent,
  );
}

/** What is shown of a source at first: of a run, its training. */
function firstFilter(source) {
  const phases = source.columns.phase?.texts ?? [];
  return phases.includes("train") && phases.length > 1 ? writeFilter({ ...NO_FILTER, phase: "train" }) : "";
}

/** Read an address: #/SOURCE/PAGE[/ID][?QUERY], #/compare or #/pair. */
function readAddress(hash) {
  const [path, query = ""] = splitOnce(hash.slice(2), "?");
  const [first, page = "overview", id] = path.split("/");
  if (first === "compare" || first === "pair") return { page: first, source: 0, query };
  return { page, source: Number(first || 0), id: id === undefined ? null : Number(id), query };
}

function splitOnce(text, separator) {
  const at = text.indexOf(separator);
  return at < 0 ? [text] : [text.slice(0, at), text.slice(at + 1)];
}

async function poll(app) {
  const status = document.getElementById("live");
  const finished = () => app.store.sources.every((source) => source.finished);
  const say = (text, className) => {
    status.textContent = text;
    status.className = `live ${className}`;
  };
  say(finished() ? "" : "live", "on");
  while (!finished()) {
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    if (document.hidden) continue;
    try {
      if (await app.store.refresh()) app.refresh();
      say(finished() ? "finished" : "live", finished() ? "" : "on");
    } catch {
      say("connection lost, trying again", "off");
    }
  }
}

async function start() {
  setUpTheme(document.getElementById("theme"));
  try {
    const store = await openStore();
    const app = new App(store);
    if (store.live) poll(app);
  } catch (error) {
    document
      .getElementById("main")
      .replaceChildren(
        el(
          "p",
          { class: "note bad" },
          "The data cannot be read: ",
          line(String(error.message ?? error), 1000),
        ),
      );
  }
}

start();
