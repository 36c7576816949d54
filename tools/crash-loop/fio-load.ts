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

const NAME = `${OUTSIDE}-fio`;
const SIZE_BYTES = 8 * MIB;
const FLUSH_EVERY = 8;
/** Fewer than FLUSH_EVERY: the next flush comes later. */
const ACTS_BEHIND = 2;

export class FioLoad implements OutsideLoad {
  readonly name = 'fio';
  readonly #folder: string;
  #said = '';
  #ended: Promise<unknown> = Promise.resolve();

  constructor(folder: string) {
    this.#folder = folder;
  }

  async begin(store: RemoteStore, seed: number): Promise<void> {
    if (await store.has(NAME)) await store.delete(NAME);
    await store.createVdisk(NAME, SIZE_BYTES);
    rmSync(this.#logPath, { force: true });
    const options = ['--ioengine=nbd', `--uri=${store.uri(NAME)}`, '--name=load', '--rw=randwrite'];
    options.push('--bs=4k', `--size=${SIZE_BYTES}`, '--iodepth=1', `--fsync=${FLUSH_EVERY}`);
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
    await store.hasClient(NAME);
  }

  async killed(): Promise<void> {
    await this.#ended;
    if (!existsSync(this.#logPath)) throw new Error(`fio has no log: ${this.#said}`);
  }

  async verify(store: RemoteStore): Promise<LoadFacts> {
    const { flushed, issued } = this.#readLog();
    const vdisk = store.vdisk(NAME);
    const bytes = Buffer.alloc(SIZE_BYTES);
    for (let at = 0; at < SIZE_BYTES; at += MIB) await vdisk.read(at, bytes.subarray(at, at + MIB));
    for (let offset = 0; offset < SIZE_BYTES; offset += BLOCK_BYTES) {
      const block = bytes.subarray(offset, offset + BLOCK_BYTES);
      const where = `fio, block at ${offset}`;
      const isWritten = block.equals(patternOf(offset));
      const isEmpty = block.equals(EMPTY);
      if (flushed.has(offset) && !isWritten && offset > 0) throw new Violation(`${where}: lost`);
      if (!isWritten && !isEmpty) throw new Violation(`${where}: bytes that nobody wrote`);
      if (isWritten && !isEmpty && !issued.has(offset)) throw new Violation(`${where}: too early`);
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
