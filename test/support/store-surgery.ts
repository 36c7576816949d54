/**
 * Changes single things of a closed store and makes every checksum above them right again, up to
 * fsinfo: what a bug or a stranger would leave behind, and no checksum sees.
 *
 * 1. Blocks are changed where they stand, in all their copies: nothing is placed or freed.
 * 2. Each edit leaves a store whose checksums are right.
 */
import assert from 'node:assert/strict';
import { crc32 } from '../../src/base/checksum.js';
import { BLOCK_BYTES, SEGMENT_BLOCKS } from '../../src/base/units.js';
import type { Device } from '../../src/env/device.js';
import type { MemoryObjectStore } from '../../src/env/memory-object-store.js';
import { fromHex } from '../../src/layout/bytes.js';
import { decodeFsinfo, encodeFsinfo, type Fsinfo, type Metafile } from '../../src/layout/fsinfo.js';
import { decodeRecord, encodeRecordTrailer } from '../../src/layout/log-record.js';
import { POINTER_WORDS, vbnAt, ZERO_VBN } from '../../src/layout/pointer.js';
import {
  decodeTreeRecord,
  encodeTreeRecord,
  TREE_RECORD_BYTES,
  type TreeRecord,
} from '../../src/layout/tree-record.js';
import {
  decodeVdiskRecord,
  encodeVdiskRecord,
  VDISK_RECORD_BYTES,
  type VdiskRecord,
} from '../../src/layout/vdisk-record.js';
import { readSlots, slotBlocks } from '../../src/store/in-place/fsinfo-slots.js';
import { findChain } from '../../src/store/object-log/chain-walk.js';
import { recordKey } from '../../src/store/object-log/record-chain.js';
import { fieldIndex } from '../../src/store/tree.js';

/** Blocks of a store by VBN, and its fsinfo. */
export interface Patient {
  readFsinfo(): Promise<Fsinfo>;
  writeFsinfo(fsinfo: Fsinfo): Promise<void>;
  read(vbn: number): Promise<Uint8Array>;
  /** All copies. */
  write(vbn: number, bytes: Uint8Array): Promise<void>;
}

export function devicePatient(device: Device): Patient {
  const write = (vbn: number, bytes: Uint8Array): Promise<void> =>
    device.write(vbn * BLOCK_BYTES, [bytes]);
  return {
    readFsinfo: async () => (await readSlots(device)).fsinfo,
    async writeFsinfo(fsinfo) {
      for (const block of slotBlocks(fsinfo.cpNumber, fsinfo.storeBlocks)) {
        await write(block, encodeFsinfo(fsinfo));
      }
    },
    async read(vbn) {
      const bytes = new Uint8Array(BLOCK_BYTES);
      await device.read(vbn * BLOCK_BYTES, [bytes]);
      return bytes;
    },
    async write(vbn, bytes) {
      await write(vbn, bytes);
      await write(vbn + SEGMENT_BLOCKS, bytes);
    },
  };
}

export function objectsPatient(objects: MemoryObjectStore, prefix: string): Patient {
  const uuidOf = async (): Promise<Uint8Array> => {
    const text = new TextDecoder().decode(await objects.get(`${prefix}/id`));
    return fromHex(text.trim()) ?? assert.fail('the store has an id');
  };
  const put = async (number: number, index: number, block: Uint8Array): Promise<void> => {
    const key = recordKey(prefix, number);
    const object = (await objects.get(key)) ?? assert.fail(`${key} is there`);
    const record = decodeRecord(object, await uuidOf()) ?? assert.fail(`${key} is sound`);
    object.set(block, index * BLOCK_BYTES);
    const tags = record.tags.map((tag, at) => (at === index ? { ...tag, crc: crc32(block) } : tag));
    const trailer = encodeRecordTrailer(record, tags, record.entries);
    object.set(trailer, record.blocks * BLOCK_BYTES);
    objects.objects.delete(key);
    objects.objects.create(key, object);
  };
  return {
    readFsinfo: async () => (await findChain(objects, prefix)).fsinfo,
    async writeFsinfo(fsinfo) {
      const { cpRecord } = await findChain(objects, prefix);
      await put(cpRecord, 0, encodeFsinfo(fsinfo));
    },
    async read(vbn) {
      const key = recordKey(prefix, Math.floor(vbn / SEGMENT_BLOCKS));
      const offset = (vbn % SEGMENT_BLOCKS) * BLOCK_BYTES;
      return (await objects.get(key, offset, BLOCK_BYTES)) ?? assert.fail(`VBN ${vbn} is there`);
    },
    write: (vbn, bytes) => put(Math.floor(vbn / SEGMENT_BLOCKS), vbn % SEGMENT_BLOCKS, bytes),
  };
}

type Root = readonly [number, number, number, number];
type EditWords = (words: Uint32Array) => void;

export class Surgery {
  readonly #patient: Patient;

  constructor(patient: Patient) {
    this.#patient = patient;
  }

  get patient(): Patient {
    return this.#patient;
  }

  async editFsinfo(change: (fsinfo: Fsinfo) => Partial<Fsinfo>): Promise<void> {
    const fsinfo = await this.#patient.readFsinfo();
    const bytes = encodeFsinfo({ ...fsinfo, ...change(fsinfo) });
    const changed = decodeFsinfo(bytes);
    assert.ok(changed.kind === 'ok');
    await this.#patient.writeFsinfo(changed.fsinfo);
  }

  /** Changes the level-0 block of a metafile. */
  async editFile(file: Metafile, fbn: number, edit: EditWords): Promise<void> {
    const { roots } = await this.#patient.readFsinfo();
    const { words, height } = roots[file];
    const changed = await this.#editBelow(words, height, fbn, 0, edit);
    await this.editFsinfo((fsinfo) => ({
      roots: { ...fsinfo.roots, [file]: { words: changed, height } },
    }));
  }

  async tree(id: number): Promise<TreeRecord> {
    return (await this.trees()).find((tree) => tree.id === id) ?? assert.fail(`no tree ${id}`);
  }

  async trees(): Promise<TreeRecord[]> {
    const found: TreeRecord[] = [];
    await this.#eachSlot('tree', TREE_RECORD_BYTES, (_fbn, _start, bytes) => {
      const record = decodeTreeRecord(bytes);
      if (record !== undefined && record !== 'free') found.push(record);
    });
    return found;
  }

  async vdisks(): Promise<VdiskRecord[]> {
    const found: VdiskRecord[] = [];
    await this.#eachSlot('vdisk', VDISK_RECORD_BYTES, (_fbn, _start, bytes) => {
      const record = decodeVdiskRecord(bytes);
      if (record !== undefined && record !== 'free') found.push(record);
    });
    return found;
  }

  async treeOf(name: string): Promise<TreeRecord> {
    const vdisk = (await this.vdisks()).find((each) => each.name === name);
    return this.tree(vdisk?.headTreeId ?? assert.fail(`no vdisk ${name}`));
  }

  async editTree(id: number, change: Partial<TreeRecord>): Promise<void> {
    const record = { ...(await this.tree(id)), ...change };
    const place = await this.#placeOf('tree', TREE_RECORD_BYTES, id);
    await this.editFile('tree', place.fbn, (words) => {
      encodeTreeRecord(record, bytesOf(words).subarray(place.start, place.start + 256));
    });
  }

  async editVdisk(name: string, change: Partial<VdiskRecord>): Promise<void> {
    const record = (await this.vdisks()).find((each) => each.name === name);
    assert.ok(record !== undefined, `no vdisk ${name}`);
    const place = await this.#placeOf('vdisk', VDISK_RECORD_BYTES, record.id);
    await this.editFile('vdisk', place.fbn, (words) => {
      const bytes = bytesOf(words).subarray(place.start, place.start + VDISK_RECORD_BYTES);
      encodeVdiskRecord({ ...record, ...change }, bytes);
    });
  }

  /** Changes the bytes of the record's slot, whatever they mean then. */
  async editSlot(file: 'tree' | 'vdisk', id: number, edit: (bytes: Uint8Array) => void) {
    const size = file === 'tree' ? TREE_RECORD_BYTES : VDISK_RECORD_BYTES;
    const place = await this.#placeOf(file, size, id);
    await this.editFile(file, place.fbn, (words) => {
      edit(bytesOf(words).subarray(place.start, place.start + size));
    });
  }

  /** Changes the indirect block of this level (1 and up) over the FBN of a tree. */
  async editIndirect(treeId: number, fbn: number, level: number, edit: EditWords): Promise<void> {
    const tree = await this.tree(treeId);
    const root = await this.#editBelow(tree.root, tree.height, fbn, level, edit);
    await this.editTree(treeId, { root });
  }

  /** Changes the four words of the pointer to the data block at the FBN. */
  editField(treeId: number, fbn: number, edit: EditWords): Promise<void> {
    return this.editIndirect(treeId, fbn, 1, (words) => {
      const at = fieldIndex(fbn, 1) * POINTER_WORDS;
      edit(words.subarray(at, at + POINTER_WORDS));
    });
  }

  /** VBN of the block of this level over the FBN. */
  async vbnOf(treeId: number, fbn: number, level = 0): Promise<number> {
    const tree = await this.tree(treeId);
    let words = Uint32Array.from(tree.root);
    for (let at = tree.height; at > level; at--) {
      const block = await this.#patient.read(vbnAt(words, 0));
      const start = fieldIndex(fbn, at) * POINTER_WORDS;
      words = wordsOf(block).slice(start, start + POINTER_WORDS);
    }
    return vbnAt(words, 0);
  }

  /** VBN of the level-0 block of a metafile. */
  async fileVbn(file: Metafile, fbn: number): Promise<number> {
    const { words, height } = (await this.#patient.readFsinfo()).roots[file];
    let field = Uint32Array.from(words);
    for (let level = height; level > 0; level--) {
      const start = fieldIndex(fbn, level) * POINTER_WORDS;
      const block = await this.#patient.read(vbnAt(field, 0));
      field = wordsOf(block).slice(start, start + POINTER_WORDS);
    }
    return vbnAt(field, 0);
  }

  /** Changes the block of `target` level on the path; returns the pointer with its new checksum. */
  async #editBelow(
    pointer: Root,
    level: number,
    fbn: number,
    target: number,
    edit: EditWords,
  ): Promise<Root> {
    const vbn = vbnAt(Uint32Array.from(pointer), 0);
    assert.ok(vbn > ZERO_VBN, `there is a level-${level} block over FBN ${fbn}`);
    const block = await this.#patient.read(vbn);
    const words = wordsOf(block);
    if (level === target) {
      edit(words);
    } else {
      const at = fieldIndex(fbn, level) * POINTER_WORDS;
      const [a = 0, b = 0, c = 0, d = 0] = words.subarray(at, at + POINTER_WORDS);
      words.set(await this.#editBelow([a, b, c, d], level - 1, fbn, target, edit), at);
    }
    await this.#patient.write(vbn, block);
    return [pointer[0], pointer[1], crc32(block), pointer[3]];
  }

  async #placeOf(
    file: 'tree' | 'vdisk',
    size: number,
    id: number,
  ): Promise<{ fbn: number; start: number }> {
    let place: { fbn: number; start: number } | undefined;
    await this.#eachSlot(file, size, (fbn, start, bytes) => {
      const view = new DataView(bytes.buffer, bytes.byteOffset, 8);
      if (view.getBigUint64(0, true) === BigInt(id)) place = { fbn, start };
    });
    return place ?? assert.fail(`no ${file} record ${id}`);
  }

  /** Slots of the blocks under the first level-1 block of the file. */
  async #eachSlot(
    file: 'tree' | 'vdisk',
    size: number,
    visit: (fbn: number, start: number, bytes: Uint8Array) => void,
  ): Promise<void> {
    const { words, height } = (await this.#patient.readFsinfo()).roots[file];
    let vbn = vbnAt(Uint32Array.from(words), 0);
    if (vbn <= ZERO_VBN) return;
    for (let level = height; level > 1; level--) {
      vbn = vbnAt(wordsOf(await this.#patient.read(vbn)), 0);
    }
    const fields = wordsOf(await this.#patient.read(vbn));
    for (let fbn = 0; fbn < 256; fbn++) {
      const at = vbnAt(fields, fbn * POINTER_WORDS);
      if (at <= ZERO_VBN) continue;
      const block = await this.#patient.read(at);
      for (let start = 0; start < BLOCK_BYTES; start += size) {
        visit(fbn, start, block.subarray(start, start + size));
      }
    }
  }
}

function wordsOf(block: Uint8Array): Uint32Array {
  return new Uint32Array(block.buffer, block.byteOffset, BLOCK_BYTES / 4);
}

function bytesOf(words: Uint32Array): Uint8Array {
  return new Uint8Array(words.buffer, words.byteOffset, words.byteLength);
}
