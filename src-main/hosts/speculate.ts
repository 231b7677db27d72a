/** Speculative decoding of a model, measured against the same model without a draft on the same backend. */
import { expected, InputError } from '../contract/input-error.ts';
import type { SpeculationRow } from '../contract/model.ts';
import type { PointConfig } from '../contract/sweep.ts';
import { builtinModelShapes } from '../engine/builtin-models.ts';
import { resolvePoint } from '../engine/plan.ts';
import { BackendFailure } from '../engine/ports.ts';
import { speculationFigures } from '../engine/speculation.ts';
import { corpusDocument } from '../models/corpus.ts';
import type { Supervisor } from '../worker/supervisor.ts';
import { wantedDevices } from './cuda.ts';
import { openModel } from './model-backend.ts';

export interface SpeculateOptions {
  readonly model: string;
  readonly target: string;
  readonly drafts: readonly string[];
  readonly draftTokens: readonly number[];
  readonly contexts: readonly number[];
  readonly tokens: number;
  readonly temperature: number;
  readonly seed: number;
  /** Where both run: `cpu` or `cuda:N`. */
  readonly backend: string;
}

const deadlineSeconds = 3600;
const prompts = 2;
/** Nothing is judged here: the text only serves calibration. */
const textLength = 64;

/** A level, perhaps changed: `balanced`, or `near-lossless window=128 sinkTokens=4`. */
export function levelFrom(text: string, model: string, backend = 'cpu'): PointConfig {
  const [level = '', ...changes] = text.trim().split(/\s+/);
  const axes = changes.map((change) => {
    const [name, value] = change.split(/=(.*)/s);
    if (!name || value === undefined) throw expected('AXIS=VALUE after a level', 'draft', change);
    return [name, /^\d+(\.\d+)?$/.test(value) ? Number(value) : value] as const;
  });
  const { config, refused } = resolvePoint({ ...Object.fromEntries(axes), level, model, backend, seqLen: textLength });
  if (refused !== undefined) throw new InputError(refused, 'draft');
  return config;
}

export async function speculateModel(
  { model, target, drafts, draftTokens, contexts, tokens, temperature, seed, backend: place }: SpeculateOptions,
  backend: Supervisor,
  onRow: (row: SpeculationRow) => void = () => undefined,
): Promise<readonly SpeculationRow[]> {
  if (!(model in builtinModelShapes)) throw expected(Object.keys(builtinModelShapes).join(' or '), 'model', model);
  await wantedDevices([place], backend);
  const targetConfig = levelFrom(target, model, place);
  const draftConfigs = drafts.map((draft) => [draft, levelFrom(draft, model, place)] as const);
  const { files, text } = await openModel(targetConfig);
  if (text.haystacks.length === 0 || targetConfig.tokenFile !== undefined)
    throw expected('a model of bytes', 'model', model);
  const rows: SpeculationRow[] = [];
  for (const context of contexts) {
    const mostSpoken = files.config.maxPositions - Math.max(...draftTokens) - 3;
    if (tokens > mostSpoken) throw expected(`at most ${mostSpoken}, the positions of the model,`, 'tokens', tokens);
    const most = files.config.maxPositions - tokens - Math.max(...draftTokens) - 2;
    if (context > most)
      throw expected(`at most ${most}, so that ${tokens} more tokens fit the model,`, 'context', context);
    const documents = Array.from({ length: prompts }, (_, i) =>
      Int32Array.from(Buffer.from(corpusDocument(2 * (seed * prompts + i) + 1, context).text, 'latin1')),
    );
    for (const [draft, config] of draftConfigs) {
      for (const gamma of draftTokens) {
        const request = { target: targetConfig, draft: config, draftTokens: gamma, tokens, temperature, seed };
        const head = { context, draft, draftTokens: gamma };
        const row = await backend
          .speculate(files, text, { ...request, plain: true, prompts: documents }, deadlineSeconds)
          .then((result) => ({ ...head, ...speculationFigures(result, temperature) }))
          .catch((error: unknown) => {
            if (error instanceof BackendFailure && error.kind === 'refused') return { ...head, refused: error.message };
            throw error;
          });
        rows.push(row);
        onRow(row);
      }
    }
  }
  return rows;
}
