/**
 * The log behind the consistency point: is it readable, and does what it names exist?
 *
 * 1. Batches that the consistency point holds already are passed over, as replay does.
 * 2. A placed block that a live entry names must be there, with its checksum; the consistency point
 *    may name it only at the entry's own place.
 */
import { isStoreError } from '../../base/store-error.js';
import type { LogEntry } from '../../layout/log-entry.js';
import { VbnSet } from '../vbn-set.js';
import type { BlockVerifier } from './block-verifier.js';
import type { CheckMedium } from './check-medium.js';
import type { Findings } from './check-report.js';
import type { StoreRecords } from './record-check.js';
import type { TreeWalker } from './tree-walk.js';

interface LoggedPlace {
  readonly treeId: number;
  readonly fbn: number;
}

export class LogCheck {
  readonly #medium: CheckMedium;
  readonly #records: StoreRecords;
  readonly #verifier: BlockVerifier;
  readonly #findings: Findings;
  /** Trees that entries so far have made. */
  readonly #newTrees = new Set<number>();
  readonly #named = new VbnSet();
  readonly #places = new Map<number, LoggedPlace>();

  constructor(
    medium: CheckMedium,
    records: StoreRecords,
    verifier: BlockVerifier,
    findings: Findings,
  ) {
    this.#medium = medium;
    this.#records = records;
    this.#verifier = verifier;
    this.#findings = findings;
  }

  /** Reads the log, before the trees are walked. */
  async read(): Promise<void> {
    const { fsinfo } = this.#medium;
    try {
      for await (const { cpNumber, entries } of this.#medium.log()) {
        if (cpNumber <= fsinfo.cpNumber) continue;
        this.#findings.counts.logBatches++;
        this.#findings.counts.logEntries += entries.length;
        for (const entry of entries) this.#take(entry);
        if (this.#verifier.isFull) await this.#verifier.flush();
      }
    } catch (error) {
      if (!isStoreError(error, 'corrupt') && !isStoreError(error, 'device')) throw error;
      this.#findings.add('log', error.message);
    }
    const { counts } = this.#findings;
    if (!fsinfo.clean || counts.logBatches === 0) return;
    this.#findings.add(
      'log',
      `the log of ${this.#medium.name} has ${counts.logBatches} groups to replay, though CP ` +
        `${fsinfo.cpNumber} says that the store was closed in order`,
    );
  }

  #take(entry: LogEntry): void {
    if (entry.kind === 'tree') this.#newTrees.add(entry.record.id);
    if (entry.kind === 'tree' || entry.kind === 'vdisk') return;
    if (!this.#records.trees.has(entry.treeId) && !this.#newTrees.has(entry.treeId)) {
      const what = `an entry of kind ${entry.kind}`;
      this.#add(`${what} names tree ${entry.treeId}, which is missing`);
      return;
    }
    if (entry.kind !== 'pointers') return;
    for (const [index, crc] of entry.crcs.entries()) {
      const vbn = entry.vbn + index;
      const fbn = entry.fbn + index;
      const fault = this.#faultOf(vbn);
      if (fault !== undefined) {
        this.#add(`tree ${entry.treeId}, FBN ${fbn}: it names VBN ${vbn}, ${fault}`);
        continue;
      }
      this.#verifier.addData(vbn, crc, entry.treeId, fbn);
      this.#named.add(vbn);
      this.#places.set(vbn, { treeId: entry.treeId, fbn });
    }
  }

  #faultOf(vbn: number): string | undefined {
    if (vbn >= this.#medium.vbnEnd) return 'beyond the end of the store';
    return this.#medium.placeFault(vbn, 'data');
  }

  /** The consistency point has the VBN at this place. */
  note(vbn: number, treeId: number, fbn: number): void {
    if (!this.#named.has(vbn)) return;
    const place = this.#places.get(vbn);
    if (place?.treeId === treeId && place.fbn === fbn) this.#named.delete(vbn);
  }

  /** All trees are walked: what the consistency point has at other places only is taken twice. */
  compare(walker: TreeWalker): void {
    for (const vbn of this.#named.values()) {
      if (!walker.data.has(vbn) && !walker.meta.has(vbn) && !walker.meta.has(vbn - 1024)) continue;
      const place = this.#places.get(vbn);
      this.#add(
        `it names VBN ${vbn} for tree ${place?.treeId}, FBN ${place?.fbn}, but CP ` +
          `${this.#medium.fsinfo.cpNumber} uses that block for something else`,
      );
    }
  }

  #add(what: string): void {
    this.#findings.add('log', `the log of ${this.#medium.name}: ${what}`);
  }
}
