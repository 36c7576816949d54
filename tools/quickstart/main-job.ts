/**
 * The main job, step by step: golden disk, snapshot, three clones, split under load, golden disk
 * deleted, proof. What is done to the store is done by the command line.
 *
 * 1. Every step looks at the store for what is there, does what is missing and says so: a run that
 *    was killed anywhere is taken up by the next one.
 */
import { existsSync, rmSync } from 'node:fs';
import { BLOCK_BYTES, formatBytes } from '../../src/base/units.js';
import { DiskClient } from './disk-client.js';
import { type DiskImage, findDiskImage, imagePathIn, makeDiskImage } from './disk-image.js';
import type { Folder } from './folder.js';
import type { Keiki } from './keiki.js';
import { hashExport } from './programs.js';
import { Proof } from './proof.js';
import type { Server } from './server.js';
import { formatMs, formatRate, type Story } from './story.js';
import { WritePlan } from './write-plan.js';

/** The client writes to the first; the others stay as they are. */
const CLONES = ['web', 'mail', 'build'] as const;
const [WRITTEN, READ, QUIET] = CLONES;
const GOLDEN = 'golden';
const SNAPSHOT = 'golden@v1';
const PLACES = 288;
const EXIT_IN_USE = 5;
/** A batch takes milliseconds: so many of them without a split are enough. */
const WARM_UP_BATCHES = 2;

export interface Stage {
  readonly story: Story;
  readonly folder: Folder;
  readonly server: Server;
  readonly keiki: Keiki;
}

export class MainJob {
  readonly #stage: Stage;
  readonly #imageBytes: number;
  readonly #ledger: string;

  constructor(stage: Stage, imageBytes: number) {
    this.#stage = stage;
    this.#imageBytes = imageBytes;
    this.#ledger = stage.folder.file('flushed.txt');
  }

  /** True if everything is what it should be. */
  async run(): Promise<boolean> {
    await this.#startServer();
    const image = await this.#makeGolden();
    await this.#makeClones();
    const plan = new WritePlan(image.diary, PLACES);
    const client = new DiskClient(await this.#attach(), this.#ledger, plan);
    await this.#splitUnderWrites(client);
    const seen = [await this.#splitUnderReads(image), await this.#deleteGolden(image)];
    const proof = new Proof(this.#stage, image);
    const isProven = await proof.run({
      written: WRITTEN,
      writes: plan.content(client.flushedCount),
      writeCount: client.flushedCount,
      untouched: [READ, QUIET],
    });
    return isProven && seen.every((verdict) => verdict);
  }

  // -- what is there

  async #startServer(): Promise<void> {
    const { story, folder, server, keiki } = this.#stage;
    story.chapter('The server');
    await server.endEarlier(() => undefined);
    if (isStoreFile(folder) && findDiskImage(folder) === undefined) {
      story.say('there is a store, but its golden image is gone: it goes, too');
      folder.removeStore();
    }
    story.command(keiki.environmentLine);
    story.command(`${server.commandLine} &`);
    const start = performance.now();
    const lines = await server.start(() => undefined);
    const ready = `ready in ${formatMs(performance.now() - start)}, process ${server.processId}`;
    const vdisks = await server.vdisks();
    const made = lines.find((line) => line.includes(' store-created: '));
    if (made !== undefined) {
      const what = isStoreFile(folder) ? 'file' : 'object log';
      story.figures(`${ready}; the store is a new ${what}, its log is ${folder.log}`);
      return;
    }
    const recovered = lines.find((line) => line.includes(' store-recovered: '));
    story.figures(`${ready}; the store is there from an earlier run`);
    if (recovered !== undefined) story.figures(recovered.replace(/^.* store-recovered: /, ''));
    const names = vdisks.map(({ name, backing, split }) => {
      if (split !== null) return `${name} (in mid-split)`;
      return backing === null ? name : `${name} (over ${backing})`;
    });
    story.figures(names.length === 0 ? 'it is empty' : `it has ${names.join(', ')}`);
  }

  // -- golden disk

  async #makeGolden(): Promise<DiskImage> {
    const { story, folder, keiki } = this.#stage;
    story.chapter('A golden disk');
    const found = findDiskImage(folder);
    const image =
      found ??
      (await story.task(
        'sfdisk, mke2fs -d: files of this machine',
        (progress) => makeDiskImage(folder, this.#imageBytes, progress),
        ({ fileCount, fileBytes }) => `${fileCount} files, ${formatBytes(fileBytes)}`,
      ));
    const at = `ext4 in a GPT partition at ${formatBytes(image.partition.offset)}`;
    const facts = `${formatBytes(image.sizeBytes)}, ${at}, sha256 ${image.sha256.slice(0, 16)}…`;
    story.say(found === undefined ? `the disk: ${facts}` : `the disk is there: ${facts}`);
    if ((await this.#has(SNAPSHOT)) || (await this.#has(WRITTEN))) {
      story.say('imported and snapshot by an earlier run');
      return image;
    }
    // An import that was killed has left nothing: what has the name is whole.
    if (await this.#has(GOLDEN)) {
      story.say('imported by an earlier run');
    } else {
      const { seconds } = await keiki.run('import', imagePathIn(folder), GOLDEN);
      const { mappedBytes } = await this.#stage.server.show(GOLDEN);
      story.figures(`${formatRate(mappedBytes, seconds)}; zeros take no space`);
    }
    const { seconds } = await keiki.run('snapshot', GOLDEN, 'v1');
    story.figures(`durable, ${formatMs(seconds * 1000)}, most of it the start of a process`);
    return image;
  }

  // -- clones

  async #makeClones(): Promise<void> {
    const { story, keiki, server } = this.#stage;
    story.chapter('Three clones');
    const missing: string[] = [];
    for (const name of CLONES) if (!(await this.#has(name))) missing.push(name);
    if (missing.length === 0) {
      story.say(`${CLONES.join(', ')} are there`);
      return;
    }
    const before = await server.usedBytes();
    if (missing.includes(WRITTEN)) rmSync(this.#ledger, { force: true });
    const { seconds } = await keiki.run('clone', SNAPSHOT, ...missing);
    const cost = Math.max(0, (await server.usedBytes()) - before);
    const size = formatBytes((await server.show(WRITTEN)).sizeBytes);
    const disks = missing.length === 1 ? 'a disk' : `${missing.length} disks`;
    const grown = `the store has grown by ${formatBytes(cost)}: all holes`;
    story.figures(`${disks} of ${size} in ${formatMs(seconds * 1000)}; ${grown}`);
    const { code } = await keiki.tryToRun('delete', SNAPSHOT);
    if (code !== EXIT_IN_USE) throw new Error(`${SNAPSHOT} under its clones: exit code ${code}`);
    story.figures(`refused, as it must be: exit code ${code}`);
  }

  /** Its own socket for the clone that is written to. @returns where clients find it */
  async #attach(): Promise<string> {
    const { story, keiki, server, folder } = this.#stage;
    story.chapter('Clients');
    const attached = async (): Promise<string | undefined> => {
      const { attachments } = await server.api.call('listAttachments', {});
      return attachments.find(({ vdisk }) => vdisk === WRITTEN)?.uri;
    };
    let uri = await attached();
    if (uri === undefined) {
      await keiki.run('attach', WRITTEN, '--socket', folder.socket('web.sock'));
      uri = await attached();
    } else {
      story.say(`${WRITTEN} has a socket of its own from an earlier run: ${uri}`);
    }
    if (uri === undefined) throw new Error(`${WRITTEN} is attached, and not listed so`);
    story.say(`${READ} and ${QUIET} are reached by name on the socket of all: ${server.uri(READ)}`);
    return uri;
  }

  // -- split

  /** The copy split of the first clone, while qemu-io writes to it. */
  async #splitUnderWrites(client: DiskClient): Promise<void> {
    const { story, server, keiki } = this.#stage;
    story.chapter('Split, while clients go on');
    if (client.flushedCount > 0) await this.#readBack(client);
    const before = await server.stats();
    const isAlone = (await server.show(WRITTEN)).backing === null;
    let isOver = isAlone;
    let batches = 0;
    // Some are there before the split: it must not touch them.
    let warm: () => void = () => undefined;
    const isWarm = new Promise<void>((resolve) => {
      warm = resolve;
    });
    const from = client.flushedCount;
    const start = performance.now();
    const writing = client.write(
      () => isOver,
      () => {
        if (++batches === WARM_UP_BATCHES) warm();
      },
    );
    // It is awaited below; should it fail before, that is told there.
    writing.catch(() => undefined);
    story.say(`qemu-io writes to ${WRITTEN}, with a FLUSH behind each eight writes, all the while`);
    if (isAlone) {
      story.say(`${WRITTEN} stands alone already`);
    } else {
      await Promise.race([isWarm, writing]);
      try {
        await keiki.run('split', WRITTEN, '--wait');
      } finally {
        isOver = true;
      }
    }
    await writing;
    const seconds = (performance.now() - start) / 1000;
    const writes = client.flushedCount - from;
    if (!isAlone) {
      const after = await server.stats();
      const bytes = (after.splitBlocksFilled - before.splitBlocksFilled) * BLOCK_BYTES;
      await this.#tellSplit(WRITTEN, bytes, client);
    }
    story.figures(`${writes} writes in ${formatMs(seconds * 1000)}, each answered, all flushed`);
  }

  /** The share splits of the others, while nbdcopy reads one of them. */
  async #splitUnderReads(image: DiskImage): Promise<boolean> {
    const { story, server, keiki } = this.#stage;
    let isProven = true;
    for (const name of [READ, QUIET]) {
      if ((await server.show(name)).backing === null) {
        story.say(`${name} stands alone already`);
        continue;
      }
      const split = async (): Promise<void> => {
        await keiki.run('split', name, '--mode', 'share', '--wait');
        await this.#tellSplit(name);
        const { sharedBytes } = await server.show(name);
        story.figures(`${formatBytes(sharedBytes)} shared with golden, by counts: nothing copied`);
      };
      if (name === READ) isProven = await this.#whileRead(name, image, split);
      else await split();
    }
    return isProven;
  }

  /** True if a client that reads the disk from end to end meanwhile sees the golden one. */
  async #whileRead(name: string, image: DiskImage, act: () => Promise<void>): Promise<boolean> {
    const { story, server } = this.#stage;
    story.say(`nbdcopy reads ${name} all the while`);
    const reading = hashExport(server.uri(name));
    // It is awaited below; should it fail before, that is told there.
    reading.catch(() => undefined);
    await act();
    const isSame = (await reading) === image.sha256;
    return story.proof(isSame, `what nbdcopy has read of ${name} meanwhile is the golden disk`);
  }

  /** What the server's job says of the split that has just been done. */
  async #tellSplit(name: string, filledBytes?: number, client?: DiskClient): Promise<void> {
    const { jobs } = await this.#stage.server.api.call('listJobs', {});
    const job = jobs.findLast(({ kind, vdisk }) => kind === 'split' && vdisk === name);
    if (job === undefined || job.endedAt === null) return;
    const [from, to] = [Date.parse(job.startedAt), Date.parse(job.endedAt)];
    const parts = [`split in ${formatMs(to - from)}`];
    if (filledBytes !== undefined) parts.push(formatRate(filledBytes, (to - from) / 1000));
    const during = client?.answeredBetween(from, to);
    if (during !== undefined) parts.push(`${during} writes were answered in mid-split`);
    this.#stage.story.figures(parts.join('; '));
  }

  /** What an earlier run's client was told is durable must be there. */
  async #readBack(client: DiskClient): Promise<void> {
    await this.#stage.story.task(
      'qemu-io reads what an earlier run flushed',
      () => client.readBack(),
      () => `${client.surelyThere.length} writes, all there`,
    );
  }

  // -- the end of the golden disk

  async #deleteGolden(image: DiskImage): Promise<boolean> {
    const { story, server, keiki } = this.#stage;
    story.chapter('The golden disk goes');
    const before = await server.usedBytes();
    const names: string[] = [];
    for (const name of [SNAPSHOT, GOLDEN]) if (await this.#has(name)) names.push(name);
    let isProven = true;
    if (names.length === 0) {
      story.say('an earlier run has deleted it');
    } else {
      isProven = await this.#whileRead(QUIET, image, async () => {
        await keiki.run('delete', ...names);
      });
    }
    const after = await server.usedBytes();
    story.figures(`the store: ${formatBytes(before)} before, ${formatBytes(after)} after`);
    const shared = formatBytes((await server.show(QUIET)).sharedBytes);
    story.figures(`${READ} and ${QUIET} go on with ${shared} that were golden's, and are theirs`);
    return isProven;
  }

  async #has(name: string): Promise<boolean> {
    return (await this.#stage.server.find(name)) !== undefined;
  }
}

/** False: there is none yet, or it is an object log elsewhere. */
function isStoreFile(folder: Folder): boolean {
  return existsSync(folder.store);
}
