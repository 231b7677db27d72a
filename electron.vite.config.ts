/**
 * The desktop app in its three parts. Main stays an ES module beside its packages; the preload script is one CommonJS file,
 * because a sandboxed one cannot be a module or load any.
 */
import { defineConfig } from 'electron-vite';
import renderer from './src-renderer/vite.config.ts';

export default defineConfig({
  main: {
    build: {
      outDir: 'dist/electron',
      emptyOutDir: false,
      rollupOptions: { input: 'src-main/hosts/electron/main.ts', output: { format: 'es', entryFileNames: 'main.js' } },
    },
  },
  preload: {
    build: {
      outDir: 'dist/electron',
      emptyOutDir: false,
      externalizeDeps: false,
      rollupOptions: {
        input: 'src-main/hosts/electron/preload.ts',
        output: { format: 'cjs', entryFileNames: 'preload.cjs' },
      },
    },
  },
  renderer: {
    ...renderer,
    root: 'src-renderer',
    build: { ...renderer.build, outDir: 'dist/renderer', rollupOptions: { input: 'src-renderer/index.html' } },
  },
});
