import type { Command } from 'commander';
import { cacheDtypes } from '../../contract/sweep.ts';
import type { AttendOptions } from '../compose.ts';
import { exitCodes, onInterrupt } from './exit.ts';
import { backendOption, choiceOption, numberOption, print } from './output.ts';
import type { Session } from './session.ts';

interface Options extends AttendOptions {
  readonly in: string;
  readonly out: string;
  readonly backend: string;
}

const distance = (name: string) =>
  numberOption(name, 'a whole number of tokens', (value) => Number.isSafeInteger(value) && value >= 0);

export const addAttend = (program: Command, session: Session): Command =>
  program
    .command('attend')
    .description('attention on the tensors of a safetensors file, for checking the kernels with data from anywhere')
    .requiredOption('--in <file>', 'tensors to read, *.safetensors')
    .requiredOption('--out <file>', 'tensors to write, *.safetensors')
    .option('--causal', 'a token sees itself and what is before it')
    .option(
      '--scale <f>',
      'factor of the scores (default: 1/sqrt(D))',
      numberOption('--scale', 'a number other than 0', (value) => value !== 0),
    )
    .option(
      '--softcap <f>',
      'scores become f·tanh(score/f)',
      numberOption('--softcap', 'a number above 0', (f) => f > 0),
    )
    .option('--window-left <n>', 'tokens visible to the left of the query', distance('--window-left'))
    .option('--window-right <n>', 'tokens visible to the right of the query', distance('--window-right'))
    .option(
      '--cache-dtype <type>',
      `how k and v are cached: ${cacheDtypes.join(', ')}`,
      choiceOption('--cache-dtype', cacheDtypes),
      'f32',
    )
    .option('--kernel <kernel>', 'flash or naive', choiceOption('--kernel', ['flash', 'naive']), 'flash')
    .option('--interleaved-rope', 'rotate channels (2c, 2c+1) instead of (c, c + rotary/2)')
    .option('--backend <backend>', 'cpu, or cuda:N without a mask', backendOption, 'cpu')
    .addHelpText(
      'after',
      `
reads   q [B,H,Sq,D]   k [B,G,Skv,D]   v [B,G,Skv,Dv]                  any float type
        past_k [B,G,past,D]   past_v [B,G,past,Dv]                     optional, both or neither
        mask, broadcastable to [B,H,Sq,past+Skv]                       optional: BOOL or U8 (1 = may see), or floats to add
        cos, sin [positions, rotary/2]                                 optional, both or neither: rotate q and k, not past_k
        position_ids [B,S] or [S], S the longer of Sq and Skv          optional: rows of cos and sin
writes  out [B,H,Sq,Dv]   present_k [B,G,past+Skv,D]   present_v       F32; what the cache holds, read back

The last query is aligned with the last key. A query that may see no key gives zeros.`,
    )
    .action(async ({ in: input, out, ...options }: Options) => {
      const stop = (): void => {
        session.exitCode = exitCodes.interrupted;
        session.profiler.cancel();
      };
      const release = onInterrupt({ onStop: stop, onCancel: stop });
      try {
        const shape = await session.profiler.attend(input, out, options);
        await print(`${out}: out [${shape.join(', ')}], present_k, present_v`);
      } finally {
        release();
      }
    });
