/**
 * What happened lately, and who listens.
 *
 * 1. Ids grow by one from 1. The last EVENTS_KEPT events can be had again (Last-Event-ID). What
 *    only counts at its moment, as progress, has the id of the event before it, and is not kept.
 * 2. A listener that does not keep up loses the oldest events it has not taken, and is told so by
 *    one event `lost` with their count; nothing else waits for it.
 */
import { invariant } from '../base/invariant.js';
import type { Clock } from '../env/clock.js';
import { toIsoTime } from '../env/wall-time.js';
import type { EVENT_TYPES, Event } from './schemas.js';

const EVENTS_KEPT = 1024;
/** Events that wait for one listener. */
const QUEUE_MAX = 256;

export type EventType = (typeof EVENT_TYPES)[number];

export class EventLog {
  readonly #clock: Clock;
  readonly #kept: Event[] = [];
  readonly #listeners = new Set<EventListener>();
  #lastId = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** @param data  an object of schemas.ts, or its names */
  add(type: EventType, data: object): void {
    this.#lastId++;
    const event = this.#tell(type, data);
    this.#kept.push(event);
    if (this.#kept.length > EVENTS_KEPT) this.#kept.shift();
  }

  /** The same, for those who listen now. */
  tell(type: EventType, data: object): void {
    if (this.#listeners.size > 0) this.#tell(type, data);
  }

  #tell(type: EventType, data: object): Event {
    const at = toIsoTime(this.#clock.wallMs());
    const event: Event = { id: this.#lastId, type, at, data: { ...data } };
    for (const listener of this.#listeners) listener.push(event);
    return event;
  }

  get recent(): readonly Event[] {
    return this.#kept;
  }

  get listenerCount(): number {
    return this.#listeners.size;
  }

  /** From the first event after `lastId`, if that is given; from the next one if not. */
  listen(lastId?: number): EventListener {
    const listener = new EventListener(() => this.#listeners.delete(listener));
    if (lastId !== undefined && lastId < this.#lastId) {
      const missed = this.#lastId - lastId;
      if (missed > this.#kept.length) listener.lose(missed - this.#kept.length);
      for (const event of this.#kept) if (event.id > lastId) listener.push(event);
    }
    this.#listeners.add(listener);
    return listener;
  }

  /** Ends all listeners. */
  close(): void {
    for (const listener of this.#listeners) listener.close();
  }
}

export class EventListener {
  #queue: Event[] = [];
  #lostCount = 0;
  #isClosed = false;
  #wake: (() => void) | undefined;
  readonly #onClose: () => void;

  constructor(onClose: () => void) {
    this.#onClose = onClose;
  }

  push(event: Event): void {
    if (this.#isClosed) return;
    if (this.#queue.length >= QUEUE_MAX) {
      this.#queue.shift();
      this.#lostCount++;
    }
    this.#queue.push(event);
    this.#wake?.();
  }

  lose(count: number): void {
    this.#lostCount += count;
  }

  /** All that waits, as soon as there is something; none when it is closed. */
  async take(): Promise<Event[]> {
    invariant(this.#wake === undefined, 'one at a time takes from a listener');
    if (this.#queue.length === 0 && !this.#isClosed) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.#wake = undefined;
    }
    const events = this.#queue;
    this.#queue = [];
    const [first] = events;
    if (this.#lostCount === 0 || first === undefined) return events;
    const data = { count: this.#lostCount };
    this.#lostCount = 0;
    return [{ id: Math.max(0, first.id - 1), type: 'lost', at: first.at, data }, ...events];
  }

  /** Gives nothing from now on. */
  close(): void {
    this.#isClosed = true;
    this.#onClose();
    this.#wake?.();
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }
}
