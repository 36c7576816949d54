/** Memory of this process: what it grew by, and its peak beside what a bench holds itself. */
import { readFileSync } from 'node:fs';
import { MIB } from '../../src/base/units.js';
import { atMost, type Report } from './report.js';

/** The store may take its option and this. */
const OVERHEAD_MIB = 150;

export function residentBytes(): number {
  return process.memoryUsage.rss();
}

/** Most memory that the process ever had, without files that it shares with others. */
function peakBytes(): number {
  const status = readFileSync('/proc/self/status', 'utf8');
  const kib = /^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1];
  return kib === undefined ? process.resourceUsage().maxRSS * 1024 : Number(kib) * 1024;
}

/**
 * @param optionBytes  memoryBytes of the store (of all that were open at once)
 * @param heldBytes    memory that the bench itself holds: a memory device, buffers of requests
 */
export function reportMemory(
  report: Report,
  optionBytes: number,
  held: { readonly what: string; readonly bytes: number },
): void {
  const heldMib = held.bytes / MIB;
  const heldText = held.bytes === 0 ? '' : ` without ${heldMib.toFixed(0)} MiB of ${held.what}`;
  report.figure({
    what: `peak memory${heldText}`,
    value: Math.round(peakBytes() / MIB - heldMib),
    unit: 'MiB',
    target: atMost(optionBytes / MIB + OVERHEAD_MIB),
  });
}
