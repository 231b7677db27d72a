/** A backend that also measures models, whole or layer by layer: finds their files and text, and hands both to the worker with every point. */
import { expected, InputError } from '../contract/input-error.ts';
import type { EvaluationText, ModelFiles } from '../contract/model.ts';
import type { PointConfig } from '../contract/sweep.ts';
import { BackendFailure, type MeasuringBackend, type Prepared } from '../engine/ports.ts';
import { openCheckpoint } from '../models/checkpoint.ts';
import { evaluationText } from '../models/evaluation-text.ts';
import { findModel } from '../models/find.ts';
import type { Supervisor } from '../worker/supervisor.ts';
import { capacityOf } from './capacity.ts';
import { builtinFolder } from './folders.ts';

/** What the engine says after every prompt of the phase speculate, and the token beyond. */
const spokenTokens = 50;
const prompts = 2;

/** What the worker needs to measure a model; headers are read, weights are not. */
export async function openModel(config: PointConfig): Promise<{ files: ModelFiles; text: EvaluationText }> {
  const name = config.model as string;
  const found = await findModel(name, builtinFolder);
  if (found.folder === undefined) throw new InputError(`model ${name} is a configuration without weights`, 'model');
  const { seqLen, seed, calibrationTokens, tokenFile, layer, batch, phase } = config;
  const most = found.config.maxPositions - spokenTokens - (config.speculativeTokens ?? 0);
  if (phase === 'speculate' && seqLen > most)
    throw expected(`at most ${most}, so that what is said fits the model's positions,`, 'seqLen', seqLen);
  return {
    files: await openCheckpoint(found.folder, found.config),
    text: await evaluationText({
      config: found.config,
      ...{ seqLen, seed, calibrationTokens },
      ...(layer !== undefined && { batch }),
      ...(phase === 'speculate' && { batch: prompts }),
      ...(tokenFile !== undefined && { tokenFile }),
    }),
  };
}

export function withModels(backend: Supervisor): MeasuringBackend {
  return {
    info: () => backend.info(),
    ceilings: () => backend.ceilings(),
    prepare: (config, deadlineSeconds) =>
      config.model === undefined
        ? backend.prepare(config, deadlineSeconds)
        : prepareModel(backend, config, deadlineSeconds),
    sample: (...asked) => backend.sample(...asked),
    conditions: (prepared) => backend.conditions(prepared),
    release: (prepared) => backend.release(prepared),
    capacity: (config, deadlineSeconds) => capacityOf(config, backend, deadlineSeconds),
    cancel: () => backend.cancel(),
    close: () => backend.close(),
  };
}

async function prepareModel(backend: Supervisor, config: PointConfig, deadlineSeconds: number): Promise<Prepared> {
  const opened = await openModel(config).catch((error: unknown) => {
    // What is wrong with a model is a row, not the end of the sweep.
    if (error instanceof InputError) throw new BackendFailure('refused', error.message, false);
    throw error;
  });
  return backend.prepareModel(config, opened.files, opened.text, deadlineSeconds);
}
