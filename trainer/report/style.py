"""The page's own style and script: nothing is fetched."""

CSS = """
:root{color-scheme:light dark;--page:#f6f7f9;--card:#fff;--ink:#16202c;--soft:#5a6675;--line:#dde2e8;--track:#e9edf1;
--good:#15803d;--warn:#a15c07;--warnbg:#fff5e0;--link:#9aa5b1}
@media(prefers-color-scheme:dark){:root{--page:#0f141a;--card:#182029;--ink:#e7ecf1;--soft:#9aa7b4;--line:#2b3540;
--track:#26303a;--good:#4ade80;--warn:#f5b759;--warnbg:#2c2413;--link:#66727e}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,"Segoe UI",Roboto,sans-serif}
main{max-width:1240px;margin:0 auto;padding:20px 16px 56px}
header{display:flex;flex-wrap:wrap;gap:4px 20px;align-items:baseline;margin-bottom:14px}
h1{font-size:1.5rem;line-height:1.2;margin:0}
h2{font-size:1.12rem;margin:0 0 4px}
h3{font-size:1rem;margin:0}
p{margin:0 0 10px}
.soft,figcaption,.note{color:var(--soft);font-size:.9rem}
.card{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:16px;margin-bottom:16px;
min-width:0}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin-bottom:16px}
.tile{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:12px 14px}
.tile b{display:block;font-size:1.5rem;line-height:1.25;font-variant-numeric:tabular-nums}
.tile span{color:var(--soft);font-size:.85rem}
.two{display:grid;grid-template-columns:minmax(0,1fr);gap:16px}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,270px),1fr));gap:12px;margin-top:10px}
.student{border:1px solid var(--line);border-left:5px solid var(--own);border-radius:10px;padding:12px 14px}
.student dl{display:grid;grid-template-columns:auto minmax(0,1fr);gap:3px 12px;margin:8px 0 0;font-size:.92rem}
dt{color:var(--soft)}dd{margin:0;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.93rem;font-variant-numeric:tabular-nums}
th,td{padding:7px 10px;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child,td:first-child{text-align:left;white-space:normal;min-width:7.5em}
.settings td:last-child{white-space:normal;overflow-wrap:anywhere;min-width:9em}
thead th{color:var(--soft);font-weight:600;font-size:.85rem}
tbody tr:last-child td{border-bottom:0}
tr.main td{font-weight:650}
.bars{display:grid;grid-template-columns:minmax(84px,auto) minmax(60px,1fr) auto;gap:6px 10px;align-items:center;
font-size:.93rem}
.bar{height:14px;border-radius:4px;background:var(--track);overflow:hidden;display:block}
.bar i{display:block;height:100%;border-radius:4px}
.value{font-variant-numeric:tabular-nums;text-align:right}
svg{display:block;width:100%;height:auto}
.grid{stroke:var(--line);stroke-width:1}.tick{fill:var(--soft);font-size:12px}
.hair{stroke:var(--soft);stroke-width:1}.catch{fill:transparent}
figure{margin:0;min-width:0}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,330px),1fr));gap:18px}
.legend{display:flex;flex-wrap:wrap;gap:4px 14px;margin:6px 0 0;font-size:.88rem}
.key{display:inline-flex;align-items:center;gap:6px}
.key i,button.key i{width:12px;height:12px;border-radius:3px;display:inline-block;flex:none}
button.key{font:inherit;font-size:.92rem;color:inherit;background:none;border:1px solid var(--line);border-radius:999px;
padding:5px 12px;cursor:pointer;min-height:36px}
button.key[aria-pressed=true]{border-color:var(--ink);box-shadow:inset 0 0 0 1px var(--ink)}
button.key:focus-visible{outline:2px solid #3b82d8;outline-offset:2px}
.bars+.note{margin-top:10px}
.reading{font-size:.88rem;color:var(--soft);margin:2px 0 0;min-height:1.5em;font-variant-numeric:tabular-nums}
#graph{max-height:82vh;margin:10px auto 6px}
.link{fill:none;stroke:var(--link);stroke-width:1;opacity:.34}
.nodes circle{stroke:var(--card);stroke-width:1}
.nodes circle:hover{stroke:var(--ink);stroke-width:2.5}
.hub{font-size:15px;font-weight:700;text-anchor:middle;fill:var(--ink);paint-order:stroke;
stroke:var(--card);stroke-width:4px;pointer-events:none}
#graph .off{opacity:.07}
.matrix{display:block;width:100%;max-width:620px;margin:10px auto 6px;border:1px solid var(--line);
image-rendering:pixelated}
.strip{display:flex;height:12px;max-width:620px;margin:10px auto -8px;border-radius:4px;overflow:hidden}
.liked{display:grid;grid-template-columns:repeat(auto-fill,minmax(56px,1fr));gap:8px;margin:10px 0 22px}
.liked figure{text-align:center}
.liked img{width:100%;aspect-ratio:1;object-fit:contain;border-radius:6px;background:var(--track);
image-rendering:pixelated}
.liked figcaption{font-size:.72rem;line-height:1.2;overflow-wrap:anywhere}
.gaps{background:var(--warnbg);border-color:var(--warn)}.gaps li{overflow-wrap:anywhere}
.heat td,.heat th{text-align:center}.heat td:first-child,.heat th:first-child{text-align:left}
details summary{cursor:pointer;font-weight:600}
code{font-size:.88em;overflow-wrap:anywhere}
ul{margin:6px 0 0;padding-left:20px}
@media(min-width:980px){.two{grid-template-columns:minmax(0,3fr) minmax(0,2fr)}.charts{gap:24px}}
@media(max-width:520px){th,td{padding:6px 7px}main{padding:14px 10px 40px}.card{padding:13px 12px}
.tile b{font-size:1.25rem}
.tiles{grid-template-columns:repeat(2,minmax(0,1fr));gap:8px}.hub{font-size:22px}
.liked{grid-template-columns:repeat(6,1fr);gap:5px}
.liked figcaption{font-size:.58rem}}
@media print{body{background:#fff}.card,.tile{break-inside:avoid}}
"""

SCRIPT = """
const graph=document.getElementById('graph'),keys=[...document.querySelectorAll('button.key')];
keys.forEach(key=>key.addEventListener('click',()=>{
 const on=key.getAttribute('aria-pressed')!=='true';
 keys.forEach(k=>k.setAttribute('aria-pressed',String(on&&k===key)));
 graph.querySelectorAll('[data-s]').forEach(e=>e.classList.toggle('off',on&&e.dataset.s!==key.dataset.s));
}));
const told=document.getElementById('told');
if(graph)for(const kind of ['pointerover','pointerdown'])graph.addEventListener(kind,event=>{
 const title=event.target.closest('circle')?.querySelector('title');
 if(title)told.textContent=title.textContent;
});
document.querySelectorAll('.catch').forEach(area=>{
 const x=area.dataset.x.split(',').map(Number),names=area.dataset.names.split(',');
 const lines=area.dataset.series.split(';').map(s=>{const [n,c,v]=s.split('|');return [n,v.split(',')]});
 const svg=area.closest('svg'),hair=svg.querySelector('.hair'),out=area.closest('figure').querySelector('.reading');
 const show=event=>{
  const box=svg.getBoundingClientRect(),at=(event.clientX-box.left)/box.width*svg.viewBox.baseVal.width;
  let best=0;x.forEach((v,i)=>{if(Math.abs(v-at)<Math.abs(x[best]-at))best=i});
  hair.setAttribute('x1',x[best]);hair.setAttribute('x2',x[best]);hair.setAttribute('visibility','visible');
  out.textContent='pass '+names[best]+': '+lines.filter(l=>l[1][best]).map(l=>l[0]+' '+l[1][best]).join(', ');
 };
 area.addEventListener('pointermove',show);area.addEventListener('pointerdown',show);
 area.addEventListener('pointerleave',()=>{hair.setAttribute('visibility','hidden');out.textContent='\\u00a0'});
});
"""
