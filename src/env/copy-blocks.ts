/** Copying blocks of a device for who has no better way: through the memory of the program. */
import { crc32 } from '../base/checksum.js';
import { isStoreError } from '../base/store-error.js';
import { BLOCK_BYTES } from '../base/units.js';
import type { BlockCopies, Device } from './device.js';

/** Copied in one read and one write: neighbours before and after. */
interface Run {
  readonly first: number;
  count: number;
}

/** What `Device.copyBlocks` promises, by the device's own `read` and `write`. */
export async function copyThroughMemory(
  device: Pick<Device, 'read' | 'write'>,
  copies: BlockCopies,
): Promise<readonly number[]> {
  const all = await Promise.allSettled(runsOf(copies).map((run) => copyRun(device, copies, run)));
  const bad: number[] = [];
  for (const outcome of all) {
    if (outcome.status === 'rejected') throw outcome.reason;
    bad.push(...outcome.value);
  }
  return bad;
}

async function copyRun(
  device: Pick<Device, 'read' | 'write'>,
  copies: BlockCopies,
  { first, count }: Run,
): Promise<number[]> {
  const bytes = new Uint8Array(count * BLOCK_BYTES);
  const blockAt = (index: number): Uint8Array =>
    bytes.subarray(index * BLOCK_BYTES, (index + 1) * BLOCK_BYTES);
  const good = (index: number): boolean => crc32(blockAt(index)) === copies.crcs[first + index];
  try {
    await device.read(offsetOf(copies.from, first), [bytes]);
  } catch (error) {
    if (!isStoreError(error, 'device')) throw error;
    if (count === 1) return [first];
    const each = Array.from({ length: count }, (_, index) => ({ first: first + index, count: 1 }));
    return (await Promise.all(each.map((run) => copyRun(device, copies, run)))).flat();
  }
  const indexes = Array.from({ length: count }, (_, index) => index);
  const bad = indexes.filter((index) => !good(index));
  if (bad.length === 0) {
    await device.write(offsetOf(copies.to, first), [bytes]);
    return [];
  }
  for (const index of indexes) {
    if (good(index)) await device.write(offsetOf(copies.to, first + index), [blockAt(index)]);
  }
  return bad.map((index) => first + index);
}

function offsetOf(blocks: readonly number[], index: number): number {
  return (blocks[index] as number) * BLOCK_BYTES;
}

function runsOf({ from, to }: BlockCopies): Run[] {
  const runs: Run[] = [];
  for (let index = 0; index < from.length; index++) {
    const last = runs.at(-1);
    const follows = (blocks: readonly number[]): boolean =>
      blocks[index] === (blocks[index - 1] as number) + 1;
    if (last !== undefined && follows(from) && follows(to)) last.count++;
    else runs.push({ first: index, count: 1 });
  }
  return runs;
}
