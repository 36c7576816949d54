/** What the package exports. */
export { isStoreError, StoreError, type StoreErrorKind } from '../base/store-error.js';
export { openFileDevice } from '../env/file-device.js';
export { MemoryDevice } from '../env/memory-device.js';
export { MemoryObjectStore } from '../env/memory-object-store.js';
export { exportQcow2 } from '../image/export-qcow2.js';
export { exportRaw } from '../image/export-raw.js';
export type { ImageReader } from '../image/image-reader.js';
export { importImage } from '../image/import-image.js';
export { importStream } from '../image/import-stream.js';
export { openImageFile } from '../image/open-image.js';
export type { CheckReport, Fault, FaultKind } from '../store/check/check-report.js';
export type { CheckOptions } from '../store/check/checker.js';
export { checkStore } from './check.js';
export type { ExternalInfo, ExternalOptions, RelocateOptions } from './external-catalog.js';
export {
  type FormatOptions,
  formatStore,
  type OpenOptions,
  openStore,
  type StoreSource,
} from './open-store.js';
export type { DeleteOptions, SplitJob, Store } from './store.js';
export type { StoreStats, VdiskInfo } from './store-info.js';
