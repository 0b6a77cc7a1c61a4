// A table of any number of rows, of which only those in sight are in the document.

import { el } from "./text.js";

const ROW = 30;
const SPARE = 5;

/**
 * The column with `main` holds the link of the row, to `href(row)`, and takes the width that the
 * others leave. `onsort(key)` follows a heading.
 */
export class VirtualTable {
  constructor({ label, href, onsort }) {
    Object.assign(this, { href, onsort });
    this.columns = [];
    this.rows = [];
    this.active = 0;
    this.first = this.end = 0;
    this.head = el("tr", {});
    this.above = el("tr", { class: "spacer", "aria-hidden": "true" });
    this.below = el("tr", { class: "spacer", "aria-hidden": "true" });
    this.body = el("tbody", {});
    this.widths = el("colgroup");
    this.table = el(
      "table",
      { class: "rows" },
      el("caption", { class: "visually-hidden" }, label),
      this.widths,
      el("thead", {}, this.head),
      this.body,
    );
    this.element = el(
      "div",
      {
        class: "table-box",
        tabindex: 0,
        role: "region",
        "aria-label": `${label}; arrow keys move, Enter opens`,
      },
      this.table,
    );
    this.element.addEventListener("scroll", () => this.draw(), { passive: true });
    this.element.addEventListener("keydown", (event) => this.key(event));
    this.body.addEventListener("click", (event) => this.click(event));
    this.body.addEventListener("focusin", (event) => {
      const place = event.target.closest("tr")?.dataset.place;
      if (place !== undefined) this.active = Number(place);
    });
    new ResizeObserver(() => this.draw()).observe(this.element);
  }

  /**
   * Show rows. `columns` are {key, title, hint, name, width, sortable, cell(row)}: `name` is the
   * class of the cells, `width` is in rem. `sort` is the key of the sorted column, with "-" in
   * front if it is descending.
   */
  set(columns, rows, sort) {
    this.columns = columns;
    this.rows = rows;
    this.widths.replaceChildren(...columns.map(columnWidth));
    this.table.style.minWidth = `${columns.reduce((sum, { width }) => sum + width, 0)}rem`;
    this.active = Math.min(this.active, Math.max(rows.length - 1, 0));
    this.drawHead(sort);
    this.table.setAttribute("aria-rowcount", rows.length + 1);
    this.draw(true);
  }

  get place() {
    return { top: this.element.scrollTop, active: this.active };
  }

  /** Return to a place that was read before. */
  set place({ top, active }) {
    this.active = Math.min(active, Math.max(this.rows.length - 1, 0));
    this.element.scrollTop = top;
    this.draw(true);
  }

  drawHead(sort) {
    const focused = this.head.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    const heading = ({ key, title, hint, sortable, name = "" }) => {
      const state = sort === key ? "ascending" : sort === `-${key}` ? "descending" : null;
      const arrow =
        state && el("span", { class: "arrow", "aria-hidden": "true" }, state === "ascending" ? "▲" : "▼");
      const content = sortable
        ? el(
            "button",
            { type: "button", "data-key": key, title: hint, onclick: () => this.onsort(key) },
            title,
            arrow,
          )
        : title;
      return el(
        "th",
        {
          scope: "col",
          class: name,
          "aria-sort": sortable ? (state ?? "none") : null,
          title: sortable ? null : hint,
        },
        content,
      );
    };
    this.head.replaceChildren(...this.columns.map(heading));
    if (focused) this.head.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
  }

  draw(anew = false) {
    const height = this.element.clientHeight || 600;
    const first = Math.max(0, Math.floor(this.element.scrollTop / ROW) - SPARE);
    const end = Math.min(this.rows.length, first + Math.ceil(height / ROW) + 2 * SPARE);
    if (!anew && first === this.first && end === this.end) return;
    const focused = this.body.contains(document.activeElement);
    [this.first, this.end] = [first, end];
    const drawn = [];
    for (let place = first; place < end; place++) drawn.push(this.row(place));
    this.above.style.height = `${first * ROW}px`;
    this.below.style.height = `${(this.rows.length - end) * ROW}px`;
    this.body.replaceChildren(this.above, ...drawn, this.below);
    const link = this.link(this.active) ?? this.body.querySelector("a");
    if (link) link.tabIndex = 0;
    if (focused) (this.link(this.active) ?? this.element).focus({ preventScroll: true });
  }

  row(place) {
    const row = this.rows[place];
    const cells = this.columns.map((column) => {
      const content = column.cell(row);
      const link = column.main ? el("a", { href: this.href(row), tabindex: -1 }, content) : content;
      return el("td", { class: column.name ?? "" }, link);
    });
    return el("tr", { "data-place": place, "aria-rowindex": place + 2 }, cells);
  }

  link(place) {
    return this.body.querySelector(`tr[data-place="${place}"] a`);
  }

  click(event) {
    if (event.target.closest("a, button") || event.ctrlKey || event.metaKey || String(getSelection())) return;
    event.target.closest("tr")?.querySelector("a")?.click();
  }

  key(event) {
    if (this.head.contains(event.target) || event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor(this.element.clientHeight / ROW) - 2);
    const here = this.body.contains(document.activeElement);
    const step = { ArrowDown: here ? 1 : 0, ArrowUp: -1, PageDown: page, PageUp: -page }[event.key];
    const last = this.rows.length - 1;
    const to =
      event.key === "Home" ? 0 : event.key === "End" ? last : step === undefined ? null : this.active + step;
    if (to === null || last < 0) return;
    event.preventDefault();
    this.focus(Math.min(Math.max(to, 0), last));
  }

  /** Move the focus to a row, and bring it into sight. */
  focus(place) {
    this.active = place;
    const head = this.head.offsetHeight;
    const top = place * ROW;
    const room = this.element.clientHeight - head - ROW;
    if (top < this.element.scrollTop) this.element.scrollTop = top;
    else if (top > this.element.scrollTop + room) this.element.scrollTop = top - room;
    this.draw(true);
    this.link(place)?.focus({ preventScroll: true });
  }
}

function columnWidth({ width, main }) {
  const column = el("col");
  if (!main) column.style.width = `${width}rem`;
  return column;
}
