/**
 * External trees: each has a descriptor that makes sense, and nothing else; and fsinfo says that
 * there are some, so that who does not know them refuses. The files themselves are not looked at.
 */
import { crc32 } from '../../base/checksum.js';
import { BLOCK_BYTES } from '../../base/units.js';
import {
  DESCRIPTOR_FBN,
  decodeExternalDescriptor,
  descriptorBlocks,
} from '../../layout/external-descriptor.js';
import { FEATURE_EXTERNAL } from '../../layout/fsinfo.js';
import type { TreeRecord } from '../../layout/tree-record.js';
import type { CheckMedium } from './check-medium.js';
import type { Findings } from './check-report.js';
import type { StoreRecords } from './record-check.js';

interface Pointer {
  readonly vbn: number;
  readonly crc: number;
}

export class ExternalCheck {
  readonly #medium: CheckMedium;
  readonly #records: StoreRecords;
  readonly #findings: Findings;
  /** Blocks of the descriptors, in order, by tree. */
  readonly #blocks = new Map<number, Pointer[]>();

  constructor(medium: CheckMedium, records: StoreRecords, findings: Findings) {
    this.#medium = medium;
    this.#records = records;
    this.#findings = findings;
  }

  /** An external tree names this block. */
  note(tree: TreeRecord, fbn: number, vbn: number, crc: number): void {
    if (tree.state !== 'live') return;
    const blocks = this.#blocks.get(tree.id) ?? [];
    this.#blocks.set(tree.id, blocks);
    if (fbn === DESCRIPTOR_FBN + blocks.length) blocks.push({ vbn, crc });
    else this.#add(tree, `it has a block at FBN ${fbn}, where its descriptor is not`);
  }

  async run(): Promise<void> {
    let isThere = false;
    for (const tree of this.#records.trees.values()) {
      if (!tree.isExternal) continue;
      isThere = true;
      if (tree.state !== 'live') continue;
      const fault = await this.#descriptorFault(tree);
      if (fault !== undefined) this.#add(tree, fault);
    }
    const { fsinfo, name } = this.#medium;
    const isAnnounced = fsinfo.incompatible % 2 === FEATURE_EXTERNAL;
    if (isThere === isAnnounced || !this.#findings.isComplete) return;
    const what = isThere ? 'does not announce its external trees' : 'announces external trees';
    this.#findings.add('tree-record', `fsinfo of ${name} ${what}${isThere ? '' : ': it has none'}`);
  }

  async #descriptorFault(tree: TreeRecord): Promise<string | undefined> {
    const pointers = this.#blocks.get(tree.id) ?? [];
    const bytes = new Uint8Array(pointers.length * BLOCK_BYTES);
    for (const [index, { vbn, crc }] of pointers.entries()) {
      const block = bytes.subarray(index * BLOCK_BYTES, (index + 1) * BLOCK_BYTES);
      const fault = await this.#medium.read(vbn, [block]);
      if (fault !== undefined || crc32(block) !== crc) return 'its descriptor cannot be read';
    }
    const descriptor = decodeExternalDescriptor(bytes);
    if (descriptor === undefined || descriptorBlocks(bytes) !== pointers.length) {
      return 'its descriptor makes no sense';
    }
    if (descriptor.sizeBytes === tree.sizeBytes) return undefined;
    return `its descriptor says ${descriptor.sizeBytes} bytes, its record ${tree.sizeBytes}`;
  }

  #add(tree: TreeRecord, fault: string): void {
    this.#findings.add('tree-record', `${this.#records.nameOfTree(tree.id)}: ${fault}`);
  }
}
