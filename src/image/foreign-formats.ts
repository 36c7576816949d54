/**
 * Formats that are not read here, by the mark that they begin with. Taken as raw they would make a
 * disk that no guest understands; so whoever means their bytes has to say so.
 */

interface ForeignFormat {
  readonly name: string;
  readonly at: number;
  readonly mark: string;
}

const FORMATS: readonly ForeignFormat[] = [
  { name: 'VMDK', at: 0, mark: 'KDMV' },
  { name: 'VHDX', at: 0, mark: 'vhdxfile' },
  { name: 'VHD', at: 0, mark: 'conectix' },
  { name: 'VDI', at: 64, mark: '\x7f\x10\xda\xbe' },
  { name: 'QED', at: 0, mark: 'QED\0' },
  { name: 'LUKS', at: 0, mark: 'LUKS\xba\xbe' },
  { name: 'gzip', at: 0, mark: '\x1f\x8b\x08' },
  { name: 'xz', at: 0, mark: '\xfd7zXZ\0' },
  { name: 'zstd', at: 0, mark: '\x28\xb5\x2f\xfd' },
  { name: 'bzip2', at: 0, mark: 'BZh' },
];

/** Name of the format that these first bytes of a file belong to, if it is one of them. */
export function refusedFormat(first: Uint8Array): string | undefined {
  return FORMATS.find(({ at, mark }) => startsWith(first, at, mark))?.name;
}

function startsWith(first: Uint8Array, at: number, mark: string): boolean {
  for (let index = 0; index < mark.length; index++) {
    if (first[at + index] !== mark.charCodeAt(index)) return false;
  }
  return true;
}
