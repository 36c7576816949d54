/**
 * Reads blocks and holds them against the checksums of their pointers.
 *
 * 1. Every copy of a metadata block is read. With repair, a damaged copy is written again from the
 *    sound one; nothing else is ever written.
 * 2. Data blocks wait in a queue and are read in the order of their VBNs, neighbours in one call.
 */
import { crc32 } from '../../base/checksum.js';
import { BLOCK_BYTES } from '../../base/units.js';
import type { CheckMedium, NamedBlock } from './check-medium.js';
import type { Findings } from './check-report.js';

/** Data blocks that wait; about 0.5 MiB of pointers. */
const QUEUE_BLOCKS = 8192;
/** Neighbours read in one call: 1 MiB. */
const RUN_BLOCKS = 256;

export interface VerifierOptions {
  readonly repair: boolean;
  readonly skipData: boolean;
}

interface DataBlock {
  readonly vbn: number;
  readonly crc: number;
  readonly treeId: number;
  readonly fbn: number;
}

export class BlockVerifier {
  readonly #medium: CheckMedium;
  readonly #findings: Findings;
  readonly #options: VerifierOptions;
  readonly #nameOf: (treeId: number) => string;
  readonly #run = Array.from({ length: RUN_BLOCKS }, () => new Uint8Array(BLOCK_BYTES));
  #queue: DataBlock[] = [];

  /** `nameOf`: the vdisk or snapshot that the tree belongs to, for messages. */
  constructor(
    medium: CheckMedium,
    findings: Findings,
    options: VerifierOptions,
    nameOf: (treeId: number) => string,
  ) {
    this.#medium = medium;
    this.#findings = findings;
    this.#options = options;
    this.#nameOf = nameOf;
  }

  /** The metadata block, from whichever copy is sound; undefined if none is. */
  async loadMeta(
    vbn: number,
    place: Omit<NamedBlock, 'kind'>,
    what: string,
  ): Promise<Uint8Array | undefined> {
    const { crc } = place;
    const { copyOffsets, name } = this.#medium;
    const damaged: { readonly vbn: number; readonly fault: string }[] = [];
    let sound: Uint8Array | undefined;
    for (const offset of copyOffsets) {
      const bytes = new Uint8Array(BLOCK_BYTES);
      const fault = await this.#readOne(vbn + offset, crc, bytes);
      if (fault === undefined) sound ??= bytes;
      else damaged.push({ vbn: vbn + offset, fault });
    }
    if (sound === undefined) {
      const copies = copyOffsets.length > 1 ? ', and so is its second copy' : '';
      const fault = `VBN ${vbn} is damaged: ${damaged[0]?.fault}${copies}`;
      this.#findings.add('metadata-lost', `${what} of ${name}: ${fault}`);
      this.#findings.markIncomplete();
      return undefined;
    }
    for (const { vbn: place, fault } of damaged) {
      const which = place === vbn ? 'first' : 'second';
      const message = `${what} of ${name}: its ${which} copy, VBN ${place}, is damaged: ${fault}`;
      if (this.#options.repair) {
        await this.#medium.rewrite(place, sound);
        this.#findings.addRepaired('metadata-copy', message);
      } else {
        this.#findings.add('metadata-copy', message);
      }
    }
    const tag = this.#medium.tagFault(vbn, { ...place, kind: 'meta' });
    if (tag !== undefined) this.#findings.add('record', `${what} of ${name}: VBN ${vbn} ${tag}`);
    return sound;
  }

  async #readOne(vbn: number, crc: number, bytes: Uint8Array): Promise<string | undefined> {
    const fault = await this.#medium.read(vbn, [bytes]);
    if (fault !== undefined) return fault;
    this.#findings.counts.blocksChecked++;
    const found = crc32(bytes);
    return found === crc
      ? undefined
      : `its checksum is ${hex(found)}, its pointer says ${hex(crc)}`;
  }

  /** Queues a data block; `isFull` says when to call `flush`. */
  addData(vbn: number, crc: number, treeId: number, fbn: number): void {
    if (!this.#options.skipData) this.#queue.push({ vbn, crc, treeId, fbn });
  }

  get isFull(): boolean {
    return this.#queue.length >= QUEUE_BLOCKS;
  }

  /** Reads and verifies what is queued. */
  async flush(): Promise<void> {
    const queue = this.#queue.sort((a, b) => a.vbn - b.vbn);
    this.#queue = [];
    let run: DataBlock[] = [];
    for (const block of queue) {
      const first = run[0];
      const follows = first !== undefined && first.vbn + run.length === block.vbn;
      if (!follows || run.length === RUN_BLOCKS) {
        await this.#verifyRun(run);
        run = [];
      }
      run.push(block);
    }
    await this.#verifyRun(run);
  }

  async #verifyRun(run: readonly DataBlock[]): Promise<void> {
    const [first] = run;
    if (first === undefined) return;
    const blocks = this.#run.slice(0, run.length);
    const fault = await this.#medium.read(first.vbn, blocks);
    if (fault !== undefined && run.length > 1) {
      for (const block of run) await this.#verifyRun([block]);
      return;
    }
    for (const [index, block] of run.entries()) {
      if (fault !== undefined) this.#addDataFault(block, fault);
      else this.#verifyData(block, blocks[index] as Uint8Array);
    }
  }

  #verifyData(block: DataBlock, bytes: Uint8Array): void {
    this.#findings.counts.blocksChecked++;
    const found = crc32(bytes);
    if (found !== block.crc) {
      const fault = `its checksum is ${hex(found)}, its pointer says ${hex(block.crc)}`;
      this.#addDataFault(block, fault);
      return;
    }
    const tag = this.#medium.tagFault(block.vbn, { ...block, level: 0, kind: 'data' });
    if (tag === undefined) return;
    const where = `${this.#nameOf(block.treeId)}, FBN ${block.fbn}, VBN ${block.vbn}`;
    this.#findings.add('record', `${where} of ${this.#medium.name} ${tag}`);
  }

  #addDataFault(block: DataBlock, fault: string): void {
    const { vbn, treeId, fbn } = block;
    const bytes = `bytes ${fbn * BLOCK_BYTES} to ${(fbn + 1) * BLOCK_BYTES - 1}`;
    this.#findings.add(
      'data-damaged',
      `${this.#nameOf(treeId)}, FBN ${fbn} (${bytes}): VBN ${vbn} of ${this.#medium.name} is ` +
        `damaged: ${fault}`,
    );
  }
}

function hex(crc: number): string {
  return `0x${crc.toString(16).padStart(8, '0')}`;
}
