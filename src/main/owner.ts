/**
 * Who this process is, for others that find its store on an object store: whether it is the machine
 * they run on, and whether it has ended.
 *
 * 1. A process is told by its id and its start, within one boot and one namespace of process ids:
 *    in another container the same id is somebody else.
 */
import { readFileSync, readlinkSync } from 'node:fs';
import { hostname } from 'node:os';
import type { OwnershipOptions } from '../store/object-log/claimant.js';
import type { Settings } from './settings.js';

type Ownership = Omit<OwnershipOptions, 'clock'>;

const STALE_READS_MS_MAX = 3000;

/** What a server says of itself on an object store, and how it treats the one before it. */
export function ownershipOf(settings: Settings): Ownership {
  return ownershipHere({
    takeOver: settings['store.take-over'],
    staleReadsMsMax: settings['store.stale-reads-ms'],
  });
}

/** The same for a program that uses the library. */
export function ownershipHere(
  wish: Pick<Ownership, 'takeOver'> & Partial<Pick<Ownership, 'staleReadsMsMax'>>,
): Ownership {
  return {
    staleReadsMsMax: STALE_READS_MS_MAX,
    ...wish,
    owner: {
      machine: machineOf(),
      program: programOf(process.pid) ?? `${process.pid}`,
      label: `${hostname()}, process ${process.pid}`,
    },
    isGone: (program) => programOf(Number.parseInt(program, 10)) !== program,
  };
}

/** A boot, and the namespace of process ids; of its own if the system does not tell. */
function machineOf(): string {
  try {
    const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
    return `${boot}/${readlinkSync('/proc/self/ns/pid')}`;
  } catch {
    return `${hostname()}/${process.pid}/${Math.round(performance.timeOrigin)}`;
  }
}

/** Undefined if there is no such process. */
function programOf(pid: number): string | undefined {
  try {
    // The name, in brackets, may hold blanks; the start is the 20th field behind it.
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    // A zombie has ended: nobody has looked yet.
    if (fields[0] === 'Z' || fields[0] === 'X') return undefined;
    return `${pid}.${fields[19]}`;
  } catch {
    return undefined;
  }
}
