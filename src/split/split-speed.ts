/**
 * How fast splits fill, by mode: those at work, else the last ones. What the time of a plan is
 * reckoned with; nothing is guessed where none has been seen.
 */
import type { SplitMode } from '../layout/tree-record.js';

/** The speed is that of the last so many windows: 256 MiB. */
const WINDOWS_MAX = 64;
/** Longer between two windows: it stood still, and that does not count. */
const GAP_MS_MAX = 10_000;

interface Filled {
  readonly beganMs: number;
  readonly endedMs: number;
  readonly blocks: number;
}

export class SplitSpeed {
  /** The last windows of splits of this mode. */
  readonly #windows: Readonly<Record<SplitMode, Filled[]>> = { copy: [], share: [] };

  /** A window was filled. */
  note(mode: SplitMode, window: Filled): void {
    const windows = this.#windows[mode];
    const last = windows.at(-1);
    if (last !== undefined && window.beganMs - last.endedMs > GAP_MS_MAX) windows.length = 0;
    windows.push(window);
    if (windows.length > WINDOWS_MAX) windows.shift();
  }

  /** Undefined if nobody knows. */
  blocksPerSecond(mode: SplitMode): number | undefined {
    const windows = this.#windows[mode];
    let blocks = 0;
    let beganMs = Number.POSITIVE_INFINITY;
    let endedMs = 0;
    for (const window of windows) {
      blocks += window.blocks;
      beganMs = Math.min(beganMs, window.beganMs);
      endedMs = Math.max(endedMs, window.endedMs);
    }
    return blocks > 0 && endedMs > beganMs ? (blocks * 1000) / (endedMs - beganMs) : undefined;
  }
}
