/**
 * The main job, step by step: golden disk, snapshot, three clones, split under load, golden disk
 * deleted, proof.
 *
 * 1. Every step looks at the store for what is there, does what is missing and says so: a run that
 *    was killed anywhere is taken up by the next one.
 * 2. A golden disk without its snapshot is an import that was killed: it goes, and is made again.
 * 3. A number in the ledger says how many of the client's writes were flushed. It is written after
 *    the flush was answered, so each of these must be there after a kill.
 */
import { appendFileSync, existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { isStoreError } from '../../src/base/store-error.js';
import { BLOCK_BYTES, formatBytes } from '../../src/base/units.js';
import { type DiskImage, findDiskImage, imagePathIn, makeDiskImage } from './disk-image.js';
import type { Lab } from './lab.js';
import { hashExport, QemuIo, runToSuccess } from './programs.js';
import { Proof } from './proof.js';
import { formatMs, formatPercent, formatRate, type Story } from './story.js';
import { type PlannedWrite, planWrites } from './write-plan.js';

/** The client writes to the first; the others stay as they are. */
const CLONES = ['web', 'mail', 'build'] as const;
const [WRITTEN, READ, QUIET] = CLONES;
const GOLDEN = 'golden';
const SNAPSHOT = 'golden@v1';
const WRITES = 288;
const BATCH = 8;
const POLL_MS = 100;

export class MainJob {
  readonly #story: Story;
  readonly #lab: Lab;
  readonly #folder: string;
  readonly #imageBytes: number;
  readonly #ledger: string;

  constructor(story: Story, lab: Lab, options: { folder: string; imageBytes: number }) {
    this.#story = story;
    this.#lab = lab;
    this.#folder = options.folder;
    this.#imageBytes = options.imageBytes;
    this.#ledger = join(options.folder, 'flushed.txt');
  }

  /** True if everything is what it should be. */
  async run(): Promise<boolean> {
    await this.#lookAround();
    const image = await this.#makeGolden();
    const writes = planWrites(image.diary, WRITES);
    await this.#makeClones();
    await this.#splitUnderWrites(writes);
    await this.#splitUnderReads();
    await this.#deleteGolden();
    return this.#prove(image, writes);
  }

  // -- what is there

  async #lookAround(): Promise<void> {
    const lab = this.#lab;
    this.#story.chapter('The store');
    const found = await this.#story.task(
      'open the store',
      (progress) => lab.open(() => progress('another run has it: waiting for its end')),
      (what) => {
        if (what === 'new') return `a new file, ${lab.storePath}`;
        if (what === 'unfinished') return 'a run was killed while it made the store: made anew';
        return lab.store.stats().recovered
          ? 'there from a run that was killed'
          : 'there, and whole';
      },
    );
    if (found !== 'found') return;
    for (const { message } of lab.events) this.#story.say(`the store says: ${message}`);
    const names = lab.store.list().map(({ name, backing, split }) => {
      if (split === undefined) return backing === undefined ? name : `${name} (over ${backing})`;
      return `${name} (split, at ${formatPercent(split.positionBytes, split.endBytes)})`;
    });
    this.#story.say(names.length === 0 ? 'it is empty' : `it has ${names.join(', ')}`);
    if (findDiskImage(this.#folder) !== undefined || names.length === 0) return;
    await this.#story.task(
      'the golden image is gone: a new store',
      async () => {
        await lab.close();
        rmSync(lab.storePath);
        return lab.open();
      },
      () => lab.storePath,
    );
  }

  // -- golden disk

  async #makeGolden(): Promise<DiskImage> {
    const story = this.#story;
    story.chapter('A golden disk');
    const found = findDiskImage(this.#folder);
    const image =
      found ??
      (await story.task(
        'mke2fs -d: files of this machine, as ext4',
        (progress) => makeDiskImage(this.#folder, this.#imageBytes, progress),
        ({ fileCount, fileBytes }) => `${fileCount} files, ${formatBytes(fileBytes)}`,
      ));
    const facts = `${formatBytes(image.sizeBytes)}, sha256 ${image.sha256.slice(0, 16)}…`;
    story.say(found === undefined ? `the image: ${facts}` : `the image is there: ${facts}`);
    if (this.#has(SNAPSHOT) || this.#has(WRITTEN)) {
      story.say('imported and snapshot by an earlier run');
      return image;
    }
    if (this.#has(GOLDEN)) {
      story.say('golden has no snapshot: its import was killed. It goes, and comes again');
      await this.#lab.store.delete(GOLDEN);
      await this.#lab.store.idle();
    }
    await this.#import(image);
    await story.task(
      `snapshot ${SNAPSHOT}`,
      () => this.#lab.store.snapshot([{ vdisk: GOLDEN, snapshot: 'v1' }]),
      () => 'durable',
    );
    return image;
  }

  async #import(image: DiskImage): Promise<void> {
    const { store } = this.#lab;
    await store.createVdisk(GOLDEN, image.sizeBytes);
    const mapped = (): number => store.show(GOLDEN).mappedBytes;
    await this.#story.task(
      'nbdcopy, 4 connections: import as golden',
      (progress) =>
        this.#watch(
          () => progress(formatBytes(mapped())),
          () =>
            runToSuccess('nbdcopy', [
              ...['--flush', '--connections=4'],
              ...[imagePathIn(this.#folder), this.#lab.uri(GOLDEN)],
            ]),
        ),
      (_, seconds) => formatRate(mapped(), seconds),
    );
  }

  // -- clones

  async #makeClones(): Promise<void> {
    const { store } = this.#lab;
    const story = this.#story;
    story.chapter('Three clones');
    const missing = CLONES.filter((name) => !this.#has(name));
    if (missing.length === 0) {
      story.say(`${CLONES.join(', ')} are there`);
      return;
    }
    const before = await this.#lab.usedBytes();
    if (missing.includes(WRITTEN)) rmSync(this.#ledger, { force: true });
    for (const name of missing) {
      await story.task(
        `clone ${name}`,
        () => store.clone(SNAPSHOT, name),
        ({ sizeBytes }) => `a disk of ${formatBytes(sizeBytes)}`,
      );
    }
    const cost = Math.max(0, (await this.#lab.usedBytes()) - before);
    const disks = missing.length === 1 ? 'disk' : 'disks';
    story.say(
      `the store has grown by ${formatBytes(cost)} for ${missing.length} ${disks}: all holes`,
    );
    try {
      await store.delete(SNAPSHOT);
      throw new Error(`${SNAPSHOT} was deleted under its clones`);
    } catch (error) {
      if (!isStoreError(error, 'in-use')) throw error;
      story.say(`deleting ${SNAPSHOT} now is refused: ${error.message}`);
    }
  }

  // -- split

  /** The copy split of the first clone, while qemu-io writes to it. */
  async #splitUnderWrites(writes: readonly PlannedWrite[]): Promise<void> {
    const story = this.#story;
    const { store } = this.#lab;
    story.chapter('Split, while clients go on');
    const flushed = this.#flushedWrites();
    if (flushed > 0) await this.#checkFlushed(writes.slice(0, flushed));
    const qemuIo = new QemuIo(this.#lab.uri(WRITTEN));
    let during = 0;
    const write = async (from: number, to: number): Promise<void> => {
      for (let at = from; at < to; at += BATCH) {
        const batch = writes.slice(at, at + BATCH);
        await qemuIo.tell([...batch.map(toCommand), 'flush']);
        appendFileSync(this.#ledger, `${at + batch.length}\n`);
        if (store.show(WRITTEN).split !== undefined) during += batch.length;
      }
    };
    const rest = Math.max(flushed, BATCH);
    const told = (): string => `${writes.length - flushed} writes, ${during} answered in mid-split`;
    const before = store.stats().splitBlocksFilled;
    // The first are there before the split: it must not touch them.
    await write(flushed, Math.min(rest, writes.length));
    if (store.show(WRITTEN).backing === undefined) {
      story.say(`${WRITTEN} stands alone already`);
      if (rest < writes.length) {
        await story.task(`qemu-io writes to ${WRITTEN}`, () => write(rest, writes.length), told);
      }
    } else {
      await story.task(
        `copy split of ${WRITTEN}, qemu-io writes to it`,
        (progress) => this.#split(WRITTEN, 'copy', progress, () => write(rest, writes.length)),
        (splitMs) => {
          const bytes = (store.stats().splitBlocksFilled - before) * BLOCK_BYTES;
          return `${formatRate(bytes, splitMs / 1000)}, split in ${formatMs(splitMs)}; ${told()}`;
        },
      );
    }
    await qemuIo.close();
  }

  /** The share splits of the others, while nbdcopy reads one of them. */
  async #splitUnderReads(): Promise<void> {
    const { store } = this.#lab;
    const reader = (): Promise<string> => hashExport(this.#lab.uri(READ));
    for (const name of [READ, QUIET]) {
      if (store.show(name).backing === undefined) {
        this.#story.say(`${name} stands alone already`);
        continue;
      }
      await this.#story.task(
        `share split of ${name}${name === READ ? ', nbdcopy reads it' : ''}`,
        (progress) => this.#split(name, 'share', progress, name === READ ? reader : undefined),
        (splitMs) => {
          const shared = formatBytes(store.show(name).sharedBytes);
          return `split in ${formatMs(splitMs)}; ${shared} shared, nothing copied`;
        },
      );
    }
  }

  /**
   * Splits, or takes up the split of an earlier run, while a client works.
   * @returns milliseconds until the disk stood alone
   */
  async #split(
    name: string,
    mode: 'copy' | 'share',
    progress: (text: string) => void,
    client: () => Promise<unknown> = () => Promise.resolve(),
  ): Promise<number> {
    const start = performance.now();
    const job = await this.#lab.store.split(name, { mode });
    const tell = (): void => {
      const state = job.state();
      if (state !== undefined) progress(formatPercent(state.positionBytes, state.endBytes));
    };
    return this.#watch(tell, async () => {
      const splitMs = job.done.then(() => performance.now() - start);
      await Promise.all([splitMs, client()]);
      return splitMs;
    });
  }

  /** What an earlier run's client was told is durable must be there. */
  async #checkFlushed(writes: readonly PlannedWrite[]): Promise<void> {
    await this.#story.task(
      'qemu-io reads what an earlier run flushed',
      async () => {
        const qemuIo = new QemuIo(this.#lab.uri(WRITTEN));
        await qemuIo.tell(writes.map(toReadCommand));
        await qemuIo.close();
      },
      () => `${writes.length} writes, all there`,
    );
  }

  #flushedWrites(): number {
    if (!existsSync(this.#ledger)) return 0;
    // A line without its end was being written: the batch is done again.
    const lines = readFileSync(this.#ledger, 'utf8').split('\n').slice(0, -1);
    return Number(lines.at(-1) ?? 0);
  }

  // -- the end of the golden disk

  async #deleteGolden(): Promise<void> {
    const { store } = this.#lab;
    const story = this.#story;
    story.chapter('The golden disk goes');
    const before = await this.#lab.usedBytes();
    const names = [SNAPSHOT, GOLDEN].filter((name) => this.#has(name));
    if (names.length === 0) story.say('an earlier run has deleted it');
    await story.task(
      names.length === 0
        ? 'give back what is left'
        : `delete ${names.join(', ')}; nbdcopy reads ${QUIET}`,
      async () => {
        const reading = names.length === 0 ? undefined : hashExport(this.#lab.uri(QUIET));
        for (const name of names) await store.delete(name);
        await store.idle();
        await reading;
      },
      () => 'the space it alone had is back',
    );
    const after = await this.#lab.usedBytes();
    story.say(`in use: ${formatBytes(before)} before, ${formatBytes(after)} after`);
    const shared = formatBytes(store.show(QUIET).sharedBytes);
    story.say(`${READ} and ${QUIET} go on with ${shared} that were golden's, and now are theirs`);
  }

  #prove(image: DiskImage, writes: readonly PlannedWrite[]): Promise<boolean> {
    const proof = new Proof(this.#story, this.#lab, this.#folder);
    return proof.run(image, { written: WRITTEN, untouched: [READ, QUIET], writes });
  }

  // --

  #has(name: string): boolean {
    return this.#lab.find(name) !== undefined;
  }

  async #watch<T>(tell: () => void, work: () => Promise<T>): Promise<T> {
    const timer = setInterval(tell, POLL_MS);
    try {
      return await work();
    } finally {
      clearInterval(timer);
    }
  }
}

function toCommand({ offset, length, pattern }: PlannedWrite): string {
  return `write -q -P ${pattern} ${offset} ${length}`;
}

function toReadCommand({ offset, length, pattern }: PlannedWrite): string {
  return `read -q -P ${pattern} ${offset} ${length}`;
}
