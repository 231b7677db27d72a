/** FastMQA from code: `import { FastMQA } from 'fastmqa'`. */
export * from './contract/api.ts';
export { InputError } from './contract/input-error.ts';
export type { Point } from './contract/metrics.ts';
export type { Environment } from './contract/session.ts';
export type { PointConfig, Sweep } from './contract/sweep.ts';
export { BackendFailure, createProfiler, type Profiler } from './hosts/compose.ts';
export { FastMQA, type FastMQAOptions, type ForwardOptions } from './hosts/library.ts';
