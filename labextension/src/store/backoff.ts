/** How long to wait before the next attempt: doubling, with an upper limit and some chance. */
export class Backoff {
  constructor(
    private _first = 1000,
    private _most = 30_000,
    private _random: () => number = Math.random
  ) {}

  /** Milliseconds to wait now; the next answer is larger. */
  next(): number {
    const full = Math.min(this._first * 2 ** this._failures, this._most);
    this._failures += 1;
    return Math.round(full * (0.8 + 0.2 * this._random()));
  }

  reset(): void {
    this._failures = 0;
  }

  private _failures = 0;
}
