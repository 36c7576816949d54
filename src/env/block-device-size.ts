/** The size of a block device: Node has no seek, and it is not in the stat. */
import { readFile, type Stats } from 'node:fs';
import { promisify } from 'node:util';
import { SECTOR_BYTES } from '../base/units.js';

/** @param stat of the device's file. Source: makedev(3), sysfs(5). */
export async function blockDeviceBytes(stat: Stats): Promise<number> {
  const major = (stat.rdev >>> 8) & 0xfff;
  const minor = (stat.rdev & 0xff) | ((stat.rdev >>> 12) & 0xfff00);
  const text = await promisify(readFile)(`/sys/dev/block/${major}:${minor}/size`, 'utf8');
  return Number(text) * SECTOR_BYTES;
}
