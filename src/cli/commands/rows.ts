/** Rows that several commands have. */
import { toAnyName, toSizeBytes, toSnapshotName, toVdiskName } from '../arguments.js';
import type { ArgumentRow, FlagRow } from '../command-table.js';

export const ANY_NAME_ROW: ArgumentRow = {
  name: 'NAME',
  summary: 'vdisk or vdisk@snapshot',
  completes: 'any-name',
  parse: toAnyName,
};

export const VDISK_ROW: ArgumentRow = {
  name: 'NAME',
  summary: 'vdisk',
  completes: 'vdisk',
  parse: toVdiskName,
};

export const SNAPSHOT_ROW: ArgumentRow = {
  name: 'VDISK@SNAP',
  summary: 'snapshot',
  completes: 'snapshot',
  parse: toSnapshotName,
};

export const NEW_NAME_ROW: ArgumentRow = {
  name: 'NAME',
  summary: 'name of the new vdisk',
  completes: 'nothing',
  parse: toVdiskName,
};

export const SIZE_FLAG: FlagRow = {
  name: 'size',
  takes: 'SIZE',
  summary: 'size, as 20G, 1.5T, 512M or bytes: a multiple of 512',
  completes: 'nothing',
  parse: toSizeBytes,
};
