// Tells a screen reader what goes on: the latest state only, every so often.

export class Announcer {
  /** @param region A live region. */
  constructor(region, pause = 1500) {
    this.region = region;
    this.pause = pause;
    this.text = "";
    this.timer = null;
    this.spokenAt = -Infinity;
  }

  /** Says a text as soon as the pause since the last one is over; a later text replaces it. */
  say(text) {
    this.text = text;
    const wait = this.pause - (performance.now() - this.spokenAt);
    this.timer ??= setTimeout(() => this.speak(), Math.max(0, wait));
  }

  /** Says a text that ends something. */
  sayNow(text) {
    this.text = text;
    clearTimeout(this.timer);
    this.speak();
  }

  speak() {
    this.timer = null;
    this.spokenAt = performance.now();
    if (this.region.textContent !== this.text) this.region.textContent = this.text;
  }
}
