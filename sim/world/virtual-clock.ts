/**
 * Owns the time of a simulated world: events in order of (time, when they were asked for).
 *
 * 1. Time moves only in `run`, from one event to the next; code between two events takes none.
 * 2. An event begins when every promise reaction of the one before has run.
 * 3. Same calls, same order: nothing depends on the real clock, the event loop or the heap's shape.
 * 4. Timers and yields of a machine that was powered off never come back.
 *
 * Only promises and this clock may wait in a simulated world: real I/O is not seen, and waiting for
 * it looks like a deadlock.
 */
import { invariant } from '../../src/base/invariant.js';
import type { Clock, Timer } from '../../src/env/clock.js';

interface ScheduledEvent {
  readonly timeMs: number;
  readonly order: number;
  /** Undefined once cancelled. */
  callback: (() => void) | undefined;
}

/** After so many events the real event loop has a turn: signals, and rejections nobody handles. */
const EVENTS_PER_TURN = 256;
/** So many events at one instant are a loop that waits for time to pass without letting it. */
const EVENTS_PER_INSTANT_MAX = 250_000;
/** 2030-01-01: wall time is for people's eyes, but must be the same in every run. */
const WALL_ORIGIN_MS = 1_893_456_000_000;

/** Nothing is left to happen, and what was waited for has not come. */
export class DeadlockError extends Error {
  override readonly name = 'DeadlockError';
}

export class VirtualClock implements Clock {
  #nowMs = 0;
  #order = 0;
  #eventsRun = 0;
  #instantEvents = 0;
  #isRunning = false;
  readonly #heap: ScheduledEvent[] = [];

  /** Events that have happened: a measure of how much a run did. */
  get eventsRun(): number {
    return this.#eventsRun;
  }

  nowMs(): number {
    return this.#nowMs;
  }

  wallMs(): number {
    return WALL_ORIGIN_MS + this.#nowMs;
  }

  setTimer(delayMs: number, callback: () => void): Timer {
    const event = this.#schedule(delayMs, callback);
    return {
      cancel: () => {
        event.callback = undefined;
      },
    };
  }

  yield(): Promise<void> {
    return this.sleep(0);
  }

  /** Resolves this much later. */
  sleep(delayMs: number): Promise<void> {
    return new Promise((resolve) => {
      this.#schedule(delayMs, resolve);
    });
  }

  /** A clock for one machine of this world, whose power can be cut. */
  machine(): MachineClock {
    return new MachineClock(this);
  }

  /**
   * Lets events happen until the promise settles, and settles the same way. What is still to happen
   * then happens in the next run.
   *
   * @throws {DeadlockError} nothing is left to happen and the promise is pending
   */
  run<T>(untilSettled: Promise<T>): Promise<T> {
    invariant(!this.#isRunning, 'one run of a virtual clock at a time');
    this.#isRunning = true;
    return new Promise<T>((resolve, reject) => {
      let isSettled = false;
      const settle = (): void => {
        if (!isSettled) this.#isRunning = false;
        isSettled = true;
        // It adopts the outcome, be it a value or an error.
        resolve(untilSettled);
      };
      const fail = (error: Error): void => {
        reject(error);
        settle();
      };
      untilSettled.then(settle, settle);
      let isIdle = false;
      const step = (): void => {
        if (isSettled) return;
        const event = this.#pop();
        if (event === undefined) {
          if (isIdle) fail(this.#deadlock());
          else setImmediate(step);
          isIdle = true;
          return;
        }
        isIdle = false;
        try {
          this.#happen(event);
        } catch (error) {
          fail(error instanceof Error ? error : new Error('an event failed', { cause: error }));
          return;
        }
        if (this.#eventsRun % EVENTS_PER_TURN === 0) setImmediate(step);
        else queueMicrotask(afterReactions);
      };
      // What a promise reaction passes to nextTick runs when no reaction is left (invariant 2);
      // passed from elsewhere it would run before them. It costs a tenth of a turn of the loop.
      const afterReactions = (): void => process.nextTick(step);
      setImmediate(step);
    });
  }

  #happen(event: ScheduledEvent): void {
    if (event.timeMs > this.#nowMs) {
      this.#nowMs = event.timeMs;
      this.#instantEvents = 0;
    }
    this.#eventsRun++;
    this.#instantEvents++;
    const isStuck = this.#instantEvents > EVENTS_PER_INSTANT_MAX;
    invariant(!isStuck, `time passes: ${EVENTS_PER_INSTANT_MAX} events at ${this.#nowMs} ms`);
    event.callback?.();
  }

  #deadlock(): DeadlockError {
    const when = `at ${this.#nowMs.toFixed(3)} ms, after ${this.#eventsRun} events`;
    return new DeadlockError(`${when}: nothing is left to happen, but the promise is pending`);
  }

  #schedule(delayMs: number, callback: () => void): ScheduledEvent {
    invariant(delayMs >= 0, 'an event is not in the past');
    const event = { timeMs: this.#nowMs + delayMs, order: this.#order++, callback };
    const heap = this.#heap;
    let index = heap.length;
    heap.push(event);
    while (index > 0) {
      const above = (index - 1) >>> 1;
      const other = heap[above];
      if (other === undefined || isBefore(other, event)) break;
      heap[index] = other;
      index = above;
    }
    heap[index] = event;
    return event;
  }

  /** The next event that is not cancelled. */
  #pop(): ScheduledEvent | undefined {
    for (;;) {
      const first = this.#heap[0];
      const last = this.#heap.pop();
      if (first === undefined || last === undefined) return undefined;
      if (this.#heap.length > 0) this.#sink(last);
      if (first.callback !== undefined) return first;
    }
  }

  /** Puts the event at the top and lets it sink to its place. */
  #sink(event: ScheduledEvent): void {
    const heap = this.#heap;
    let index = 0;
    for (;;) {
      let below = 2 * index + 1;
      let next = heap[below];
      if (next === undefined) break;
      const right = heap[below + 1];
      if (right !== undefined && isBefore(right, next)) {
        next = right;
        below++;
      }
      if (isBefore(event, next)) break;
      heap[index] = next;
      index = below;
    }
    heap[index] = event;
  }
}

function isBefore(a: ScheduledEvent, b: ScheduledEvent): boolean {
  return a.timeMs < b.timeMs || (a.timeMs === b.timeMs && a.order < b.order);
}

/**
 * The clock of one machine. It stops when the machine's power does (invariant 4); and it can stand
 * still for a while, as one that is paused does: what reaches it meanwhile waits until it goes on.
 */
export class MachineClock implements Clock {
  readonly #world: VirtualClock;
  #isOn = true;
  #frozenUntilMs = 0;

  constructor(world: VirtualClock) {
    this.#world = world;
  }

  nowMs(): number {
    return this.#world.nowMs();
  }

  wallMs(): number {
    return this.#world.wallMs();
  }

  setTimer(delayMs: number, callback: () => void): Timer {
    let isCancelled = false;
    const timer = this.#world.setTimer(delayMs, () =>
      this.deliver(() => {
        if (!isCancelled) callback();
      }),
    );
    return {
      cancel: () => {
        isCancelled = true;
        timer.cancel();
      },
    };
  }

  yield(): Promise<void> {
    return new Promise((resolve) => {
      this.setTimer(0, resolve);
    });
  }

  get isOn(): boolean {
    return this.#isOn;
  }

  /** The world goes on without it. */
  freeze(durationMs: number): void {
    this.#frozenUntilMs = Math.max(this.#frozenUntilMs, this.#world.nowMs() + durationMs);
  }

  /** Something reaches the machine, as soon as it runs. */
  deliver(callback: () => void): void {
    if (!this.#isOn) return;
    const restMs = this.#frozenUntilMs - this.#world.nowMs();
    if (restMs <= 0) callback();
    else this.#world.setTimer(restMs, () => this.deliver(callback));
  }

  /** Nothing that this machine waits for will happen any more. */
  powerOff(): void {
    this.#isOn = false;
  }
}
