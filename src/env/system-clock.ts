/** The machine's own clock and turns. */
import { performance } from 'node:perf_hooks';
import type { Clock, Timer, TimerOptions } from './clock.js';

export const systemClock: Clock = {
  nowMs: () => performance.now(),
  wallMs: () => Date.now(),
  setTimer(delayMs: number, callback: () => void, options?: TimerOptions): Timer {
    const timer = setTimeout(callback, delayMs);
    if (options?.keepsAlive !== true) timer.unref();
    return { cancel: () => clearTimeout(timer) };
  },
  yield: () => new Promise((resolve) => setImmediate(resolve)),
};
