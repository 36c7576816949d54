/** The golden disk of a round: runs of data, scattered blocks, and holes, megabyte by megabyte. */
import { createNamed, snapshotNamed } from '../../sim/acts/admin.js';
import { writeRange } from '../../sim/acts/io.js';
import type { Life } from '../../sim/life.js';
import type { ModelDisk } from '../../sim/model/disk.js';
import { BLOCK_BYTES, FIELDS_PER_BLOCK, MIB } from '../../src/base/units.js';

/** Of a megabyte: all of it, some blocks of it. The rest of the disk are holes. */
const FULL_CHANCE = 0.5;
const SCATTERED_CHANCE = 0.2;
const SCATTERED_BLOCKS = 24;
const WRITES_AT_ONCE = 4;

export interface Golden {
  readonly vdisk: ModelDisk;
  readonly snapshot: ModelDisk;
}

/** @param isLayered  golden@v1 reads through golden@v0: nothing of it can be shared whole */
export async function makeGolden(
  life: Life,
  sizeBytes: number,
  isLayered: boolean,
): Promise<Golden> {
  const { model } = life;
  await createNamed(life, 'golden', sizeBytes);
  const vdisk = found(model.find('golden'));
  const offsets = Array.from({ length: sizeBytes / MIB }, (_, index) => index * MIB);
  const behind = offsets.splice(isLayered ? offsets.length / 2 : 0);
  await writeAll(life, vdisk, behind);
  if (isLayered) {
    await snapshotNamed(life, [vdisk], 'v0');
    await writeAll(life, vdisk, offsets);
  }
  await snapshotNamed(life, [vdisk], 'v1');
  return { vdisk, snapshot: found(model.find('golden@v1')) };
}

async function writeAll(life: Life, disk: ModelDisk, offsets: number[]): Promise<void> {
  const lanes = Array.from({ length: WRITES_AT_ONCE }, async () => {
    for (let at = offsets.pop(); at !== undefined; at = offsets.pop()) {
      await writeMegabyte(life, disk, at);
    }
  });
  await Promise.all(lanes);
}

async function writeMegabyte(life: Life, disk: ModelDisk, offset: number): Promise<void> {
  const { random } = life;
  if (random.chance(FULL_CHANCE)) {
    await writeRange(life, disk, { offset, length: MIB }, false, 'write-full');
  } else if (random.chance(SCATTERED_CHANCE / (1 - FULL_CHANCE))) {
    for (let count = 0; count < SCATTERED_BLOCKS; count++) {
      const at = offset + random.below(FIELDS_PER_BLOCK) * BLOCK_BYTES;
      await writeRange(life, disk, { offset: at, length: BLOCK_BYTES }, false, 'write-block');
    }
  }
}

export function found<T>(value: T | undefined): T {
  if (value === undefined) throw new Error('it was made, and is not there');
  return value;
}
