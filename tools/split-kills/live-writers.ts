/**
 * Clients of vdisks that are being split: whole sectors and blocks anywhere, zeros, reads, flushes,
 * followed by the simulator's model. Each has its own megabytes, so that no two writes meet.
 */
import { flushDisk, readRange, writeRange, zeroRange } from '../../sim/acts/io.js';
import type { Life } from '../../sim/life.js';
import type { ModelDisk } from '../../sim/model/disk.js';
import { BLOCK_BYTES, MIB, SECTOR_BYTES } from '../../src/base/units.js';

const LANES = 3;
const THINK_MS = 6;

/** Each promise resolves when one of them has stopped. */
export function startWriters(life: Life, disks: readonly ModelDisk[]): Promise<void>[] {
  return disks.flatMap((disk) =>
    Array.from({ length: LANES }, (_, lane) =>
      life.go(async () => {
        while (!life.isStopping) {
          await act(life, disk, lane);
          await life.sleep(life.random.below(THINK_MS));
        }
      }),
    ),
  );
}

async function act(life: Life, disk: ModelDisk, lane: number): Promise<void> {
  const { random } = life;
  const megabytes = disk.sizeBytes / MIB;
  const megabyte = lane + LANES * random.below(Math.floor((megabytes - lane - 1) / LANES) + 1);
  const unit = random.chance(0.5) ? BLOCK_BYTES : SECTOR_BYTES;
  const length = unit * (1 + random.below(8));
  const offset = megabyte * MIB + unit * random.below((MIB - length) / unit + 1);
  const kind = random.below(10);
  if (kind < 4) await writeRange(life, disk, { offset, length }, kind === 0, 'write-sectors');
  else if (kind < 6) await flushDisk(life, disk);
  else if (kind < 9) await readRange(life, disk, { offset, length });
  else {
    // Whole blocks: what is zero sector by sector is a block of zeros that takes space.
    const block = Math.floor(offset / BLOCK_BYTES) * BLOCK_BYTES;
    const zeroes = random.chance(0.5) ? 'trim' : 'write-zeroes';
    await zeroRange(life, disk, { offset: block, length: BLOCK_BYTES }, zeroes, false);
  }
}
