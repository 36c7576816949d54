/**
 * A vdisk or snapshot of a running server as the simulator's acts see it: over two NBD connections,
 * in turn, so that a flush on one has to cover what was written on the other.
 *
 * 1. Connections are made when they are needed. While the vdisk is deleted there are none.
 */

import type { LivingTarget } from '../../sim/life.js';
import { isStoreError } from '../../src/base/store-error.js';
import { BLOCK_BYTES, GIB } from '../../src/base/units.js';
import type { Extent, WriteOptions } from '../../src/vdisk/block-target.js';
import type { LibnbdClients, NbdRequest } from './libnbd-clients.js';

const CONNECTIONS = 2;
/** A request of NBD has 32 bits for its length. */
const RANGE_BYTES_MAX = 4 * GIB - BLOCK_BYTES;
/** Of longer ranges the control API knows the map in one answer. */
const STATUS_BYTES_MAX = 64 * GIB;
const STATE_ZERO = 2;

export interface RemoteVdiskParts {
  readonly clients: LibnbdClients;
  readonly uriOf: (name: string) => string;
  /** Resolves when no vdisk is being renamed. */
  readonly renamed: () => Promise<void>;
  readonly mapOf: (name: string, offset: number, length: number) => Promise<Extent[]>;
}

export class RemoteVdisk implements LivingTarget {
  name: string;
  readonly #parts: RemoteVdiskParts;
  #connections: Promise<number[]> | undefined;
  readonly #underWay = new Set<Promise<Buffer>>();
  #turn = 0;
  #gate: Promise<unknown> | undefined;

  constructor(name: string, parts: RemoteVdiskParts) {
    this.name = name;
    this.#parts = parts;
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    into.set(await this.#ask({ operation: 'read', offset, length: into.length }));
  }

  async write(offset: number, data: Uint8Array, { fua }: WriteOptions = {}): Promise<void> {
    await this.#ask({ operation: 'write', offset, data, fua: fua === true });
  }

  trim(offset: number, length: number, options: WriteOptions = {}): Promise<void> {
    return this.#zero('trim', offset, length, options);
  }

  writeZeroes(offset: number, length: number, options: WriteOptions = {}): Promise<void> {
    return this.#zero('zero', offset, length, options);
  }

  async flush(): Promise<void> {
    await this.#ask({ operation: 'flush' });
  }

  async blockStatus(offset: number, length: number): Promise<Extent[]> {
    if (length > STATUS_BYTES_MAX) return this.#parts.mapOf(this.name, offset, length);
    const extents: Extent[] = [];
    for (let at = offset; at < offset + length; ) {
      const rest = Math.min(RANGE_BYTES_MAX, offset + length - at);
      const answer = await this.#ask({ operation: 'status', offset: at, length: rest });
      const end = at + rest;
      for (let index = 0; index < answer.length && at < end; index += 8) {
        // The last extent may reach beyond what was asked for.
        const size = Math.min(answer.readUInt32LE(index), end - at);
        const isZero = (answer.readUInt32LE(index + 4) & STATE_ZERO) !== 0;
        const kind = isZero ? 'zero' : 'data';
        extents.push({ offset: at, length: size, kind, depth: 0, filled: false });
        at += size;
      }
    }
    return extents;
  }

  /** Keeps everybody out while `act` runs: what is under way is answered first. */
  async alone<T>(act: () => Promise<T>): Promise<T> {
    const alone = this.#disconnect().then(act);
    this.#gate = alone
      .catch(() => undefined)
      .finally(() => {
        this.#gate = undefined;
      });
    return alone;
  }

  async #disconnect(): Promise<void> {
    const connections = (await this.#connections?.catch(() => undefined)) ?? [];
    this.#connections = undefined;
    await Promise.allSettled(this.#underWay);
    for (const connection of connections) {
      await this.#parts.clients.ask({ operation: 'close', connection });
    }
  }

  async #zero(
    operation: 'trim' | 'zero',
    offset: number,
    length: number,
    { fua }: WriteOptions,
  ): Promise<void> {
    const pieces: Promise<Buffer>[] = [];
    for (let done = 0; done < length; done += RANGE_BYTES_MAX) {
      const piece = Math.min(RANGE_BYTES_MAX, length - done);
      const range = { offset: offset + done, length: piece, fua: fua === true };
      pieces.push(this.#ask({ operation, ...range }));
    }
    await Promise.all(pieces);
  }

  async #ask(request: Omit<NbdRequest, 'connection'>): Promise<Buffer> {
    const connections = await this.#connect();
    const connection = connections[this.#turn++ % connections.length] ?? 0;
    const asked = this.#parts.clients.ask({ ...request, connection });
    this.#underWay.add(asked);
    try {
      return await asked;
    } finally {
      this.#underWay.delete(asked);
    }
  }

  async #connect(): Promise<number[]> {
    while (this.#gate !== undefined) await this.#gate;
    this.#connections ??= this.#open();
    try {
      return await this.#connections;
    } catch (error) {
      this.#connections = undefined;
      throw error;
    }
  }

  async #open(): Promise<number[]> {
    const { clients, uriOf, renamed } = this.#parts;
    for (;;) {
      await renamed();
      const { name } = this;
      try {
        return await openAll(clients, uriOf(name));
      } catch (error) {
        await renamed();
        if (!isStoreError(error, 'not-found') || this.name === name) throw error;
      }
    }
  }
}

/** All or none: one that is left behind would keep the vdisk from being deleted for ever. */
async function openAll(clients: LibnbdClients, uri: string): Promise<number[]> {
  const opens = Array.from({ length: CONNECTIONS }, () => clients.open(uri));
  const outcomes = await Promise.allSettled(opens);
  const there = outcomes.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []));
  const failed = outcomes.find((each) => each.status === 'rejected');
  if (failed === undefined) return there;
  for (const connection of there) await clients.ask({ operation: 'close', connection });
  throw failed.reason;
}
