/** What refutes a certificate: what is wrong, where, and whose block it is. */

/**
 * association: it reads through something foreign. hole: so would this block be read.
 * foreign-block: another one names the block, and nothing says that it may. free-block: it names
 * what is not in use. checksum: a filled block is not what the backing store has there. content:
 * its hash differs.
 */
export type FindingKind =
  | 'association'
  | 'hole'
  | 'foreign-block'
  | 'free-block'
  | 'checksum'
  | 'content';

export interface Finding {
  readonly kind: FindingKind;
  /** First block that it is about, where it is about blocks. */
  readonly fbn: number | undefined;
  /** For people. */
  readonly message: string;
}

/** All are counted; of these many is told what they are. */
export const FINDINGS_MAX = 100;

export class Findings {
  readonly list: Finding[] = [];
  count = 0;

  add(kind: FindingKind, fbn: number | undefined, message: string): void {
    this.count++;
    if (this.list.length < FINDINGS_MAX) this.list.push({ kind, fbn, message });
  }
}

export function hex(crc: number): string {
  return `0x${crc.toString(16).padStart(8, '0')}`;
}
