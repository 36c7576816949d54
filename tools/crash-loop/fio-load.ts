/**
 * fio as a load: random blocks of a new vdisk, each written once, at depth 1, a flush behind every
 * eighth. A block holds its own offset. fio's log says what it issued, in order; after an act that
 * failed it notes one more. So what stands before a flush that two acts stand behind was flushed,
 * and has to be there.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { Violation } from '../../sim/model/violation.js';
import { BLOCK_BYTES, MIB } from '../../src/base/units.js';
import type { OutsideLoad } from './outside-load.js';
import { OUTSIDE, type RemoteStore } from './remote-store.js';
import type { LoadFacts } from './tally.js';

const FLUSH_EVERY = 8;
/** Fewer than FLUSH_EVERY: the next flush comes later. */
const ACTS_BEHIND = 2;

/** Where fio writes. */
export interface FioPlace {
  readonly vdisk: string;
  readonly offset: number;
  readonly sizeBytes: number;
  /** What the range has before; zeros without it. */
  readonly before?: Buffer;
}

const PLACE: FioPlace = { vdisk: `${OUTSIDE}-fio`, offset: 0, sizeBytes: 8 * MIB };

export class FioLoad implements OutsideLoad {
  readonly name = 'fio';
  readonly #folder: string;
  readonly #place: FioPlace;
  #said = '';
  #ended: Promise<unknown> = Promise.resolve();

  /** Without a place, a new vdisk each time. */
  constructor(folder: string, place = PLACE) {
    this.#folder = folder;
    this.#place = place;
  }

  async begin(store: RemoteStore, seed: number): Promise<void> {
    const { vdisk, offset, sizeBytes } = this.#place;
    if (this.#place === PLACE) {
      if (await store.has(vdisk)) await store.delete(vdisk);
      await store.createVdisk(vdisk, sizeBytes);
    }
    rmSync(this.#logPath, { force: true });
    const options = ['--ioengine=nbd', `--uri=${store.uri(vdisk)}`, '--name=load'];
    options.push('--rw=randwrite', `--offset=${offset}`);
    options.push('--bs=4k', `--size=${sizeBytes}`, '--iodepth=1', `--fsync=${FLUSH_EVERY}`);
    options.push('--verify=pattern', '--verify_pattern=%o', '--do_verify=0', `--randseed=${seed}`);
    const fio = spawn('fio', [...options, `--write_iolog=${this.#logPath}`], {
      cwd: this.#folder,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const read = (chunk: Buffer): void => {
      this.#said += chunk.toString();
    };
    this.#said = '';
    fio.stdout.on('data', read);
    fio.stderr.on('data', read);
    this.#ended = once(fio, 'close');
    await store.hasClient(vdisk);
  }

  async killed(): Promise<void> {
    await this.#ended;
    if (!existsSync(this.#logPath)) throw new Error(`fio has no log: ${this.#said}`);
  }

  async verify(store: RemoteStore): Promise<LoadFacts> {
    const { flushed, issued } = this.#readLog();
    const { vdisk, offset: from, sizeBytes, before } = this.#place;
    const target = store.vdisk(vdisk);
    const bytes = Buffer.alloc(sizeBytes);
    for (let at = 0; at < sizeBytes; at += MIB) {
      await target.read(from + at, bytes.subarray(at, at + MIB));
    }
    for (let at = 0; at < sizeBytes; at += BLOCK_BYTES) {
      const offset = from + at;
      const block = bytes.subarray(at, at + BLOCK_BYTES);
      const where = `fio, block at ${offset}`;
      const old = before?.subarray(at, at + BLOCK_BYTES) ?? EMPTY;
      const isWritten = block.equals(patternOf(offset));
      const isOld = block.equals(old);
      if (flushed.has(offset) && !isWritten && offset > 0) throw new Violation(`${where}: lost`);
      if (!isWritten && !isOld) throw new Violation(`${where}: bytes that nobody wrote`);
      if (isWritten && !isOld && !issued.has(offset)) throw new Violation(`${where}: too early`);
    }
    return { unit: 'flushed blocks', checked: flushed.size };
  }

  get #logPath(): string {
    return join(this.#folder, 'fio.log');
  }

  #readLog(): { flushed: Set<number>; issued: Set<number> } {
    const issued = new Set<number>();
    const flushed = new Set<number>();
    /** Offsets before a flush, and how many acts stand behind it. */
    let pending: { readonly offsets: readonly number[]; behind: number } | undefined;
    // Lines: time, file, act, offset, length.
    for (const line of readFileSync(this.#logPath, 'utf8').split('\n')) {
      const [, , act, offset] = line.split(' ');
      if (act !== 'write' && act !== 'sync') continue;
      if (pending !== undefined && ++pending.behind === ACTS_BEHIND) {
        for (const each of pending.offsets) flushed.add(each);
      }
      if (act === 'write') issued.add(Number(offset));
      else pending = { offsets: [...issued], behind: 0 };
    }
    return { flushed, issued };
  }
}

const EMPTY = Buffer.alloc(BLOCK_BYTES);

function patternOf(offset: number): Buffer {
  const block = Buffer.alloc(BLOCK_BYTES);
  for (let at = 0; at < BLOCK_BYTES; at += 8) block.writeBigUInt64LE(BigInt(offset), at);
  return block;
}
