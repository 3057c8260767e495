"""The page of the viewer: the document of `looking/page.py`, whose records come from the server."""

from __future__ import annotations

from html import escape
from typing import Final

from afterimage.storage.looking.page import document_html, hash_of, page_style

__all__ = ["page_of_server", "policy"]

_FROM_SERVER: Final = "connect-src 'self'"

_CONTROLS: Final = """
<select id="kind" aria-label="Kind"><option value="conversations">conversations</option>
<option value="documents">documents</option></select>
<input id="q" type="search" list="fields" autocomplete="off" spellcheck="false" aria-label="Search"
placeholder="words, or: metadata.domain = Flights and messages.content contains refund">
<datalist id="fields"></datalist>
<select id="order" aria-label="Order"><option value="">in order of insertion</option></select>
<span id="facets"></span>
<button id="before" type="button">Previous</button>
<button id="after" type="button">Next</button>
<button id="dark" type="button">Dark or light</button>
<output aria-live="polite"></output>
<p class="error" role="alert" hidden></p>
<details id="code"><summary>The same in Python and SQL</summary><pre></pre></details>
"""

# Text from the store enters the page as text, except for the articles, whose HTML the server has
# escaped; the policy stops any script in them.
_SCRIPT: Final = """
const $=id=>document.getElementById(id),out=document.querySelector('output'),
main=document.querySelector('main'),fault=document.querySelector('.error'),SIZE=20;
let offset=0,count=null,facets={},asked=0;
function state(){const s=new URLSearchParams();
 if($('kind').value!=='conversations')s.set('kind',$('kind').value);
 if($('q').value)s.set('q',$('q').value);if($('order').value)s.set('order',$('order').value);
 for(const [field,value] of Object.entries(facets))
  s.append('value',JSON.stringify([field,value]));
 if(offset)s.set('offset',offset);return s}
async function get(path,parameters){const r=await fetch(path+'?'+parameters,
 {credentials:'same-origin'});const found=await r.json();
 if(!r.ok)throw new Error(found.error||r.statusText);return found}
function tell(error){fault.textContent=error.message;fault.hidden=false}
function numbers(shown){const last=offset+shown;
 out.textContent=(shown?(offset+1)+' to '+last:'none')+
  (count===null?'':' of '+count.toLocaleString());
 $('before').disabled=offset===0;$('after').disabled=shown<SIZE||(count!==null&&last>=count)}
function button(label,action){const b=document.createElement('button');b.type='button';
 b.textContent=label;b.addEventListener('click',()=>action(b).catch(tell));return b}
function at(index){const s=state();s.set('offset',offset+index);return s}
async function show(again){const mine=++asked,s=state();s.set('limit',SIZE);
 history.replaceState(null,'','#'+state());fault.hidden=true;main.setAttribute('aria-busy','true');
 try{if(again){count=null;get('count',s).then(f=>{if(mine===asked){count=f.count;
   numbers(main.querySelectorAll('article').length)}}).catch(tell);
   get('facets',s).then(f=>{if(mine===asked)menus(f.facets)}).catch(tell)}
  const found=await get('records',s);if(mine!==asked)return false;
  main.innerHTML=found.articles.join('')||'<p>no records</p>';
  [...main.querySelectorAll('article')].forEach((a,i)=>{a.append(
   button('Copy as JSON',async b=>{const f=await get('json',at(i));
    await navigator.clipboard.writeText(JSON.stringify(f.record,null,1));b.textContent='Copied'}),
   button('Link',async()=>{const f=await get('hash',at(i));
    $('q').value='content_hash = "'+f.hash+'"';facets={};offset=0;await show(true)}))});
  numbers(found.articles.length);
  if($('code').open)await code();return true}
 catch(error){if(mine===asked)tell(error);return false}
 finally{if(mine===asked)main.removeAttribute('aria-busy')}}
function menus(found){const names=[...new Set([...Object.keys(found),...Object.keys(facets)])];
 $('facets').replaceChildren(...names.map(field=>{const m=document.createElement('select');
  m.setAttribute('aria-label',field);m.append(new Option(field,''));
  const values=found[field]||[];const known=values.map(v=>v[0]);
  if(field in facets&&!known.includes(facets[field]))values.unshift([facets[field],0]);
  for(const [value,n] of values)
   m.append(new Option(value+' ('+n.toLocaleString()+')',JSON.stringify(value)));
  m.value=field in facets?JSON.stringify(facets[field]):'';
  m.addEventListener('change',()=>{if(m.value)facets[field]=JSON.parse(m.value);
   else delete facets[field];offset=0;show(true)});return m}))}
async function code(){const s=state();s.set('limit',SIZE);const f=await get('code',s);
 $('code').querySelector('pre').textContent=f.python+(f.sql?'\\n\\n'+f.sql:'')}
async function fields(){const f=await get('fields',state());
 $('fields').replaceChildren(...f.fields.map(name=>{const o=document.createElement('option');
  o.value=name;return o}));
 const kept=$('order').value;
 $('order').replaceChildren(new Option('in order of insertion',''),...f.fields.filter(
  name=>!name.startsWith('messages.')).flatMap(name=>[new Option(name,name),
  new Option(name+', descending',name+':desc')]));$('order').value=kept}
async function restore(){const s=new URLSearchParams(location.hash.slice(1));
 $('kind').value=s.get('kind')==='documents'?'documents':'conversations';$('q').value=s.get('q')||'';
 facets={};for(const each of s.getAll('value')){try{const [field,value]=JSON.parse(each);
  facets[field]=value}catch{}}
 offset=Math.max(0,parseInt(s.get('offset')||'0',10)||0);
 try{await fields()}catch(error){tell(error);return}
 $('order').value=s.get('order')||'';if($('order').selectedIndex<0)$('order').value='';
 await show(true)}
async function turn(step){const to=offset+step*SIZE;
 if(to<0||(step>0&&$('after').disabled))return false;
 offset=to;const ok=await show(false);if(ok)scrollTo(0,0);return ok}
let wait;$('q').addEventListener('input',()=>{clearTimeout(wait);
 wait=setTimeout(()=>{offset=0;show(true)},250)});
$('order').addEventListener('change',()=>{offset=0;show(false)});
$('kind').addEventListener('change',()=>{offset=0;facets={};$('order').value='';
 fields().then(()=>show(true)).catch(tell)});
$('before').addEventListener('click',()=>turn(-1));$('after').addEventListener('click',()=>turn(1));
$('code').addEventListener('toggle',()=>{if($('code').open)code().catch(tell)});
addEventListener('hashchange',restore);
addEventListener('keydown',async e=>{
 if(e.target.matches('input,select,textarea')||e.ctrlKey||e.metaKey||e.altKey)return;
 if(e.key==='/'){$('q').focus();e.preventDefault()}
 if(e.key==='n')turn(1);if(e.key==='p')turn(-1);
 const step={j:1,k:-1}[e.key];if(!step)return;
 let all=[...main.querySelectorAll('article')],
 next=all.indexOf(document.activeElement)+step;
 if(next>=all.length){if(!await turn(1))return;all=[...main.querySelectorAll('article')];next=0}
 else if(next<0&&document.activeElement.matches('article')){if(!await turn(-1))return;
  all=[...main.querySelectorAll('article')];next=all.length-1}
 const to=all[Math.max(0,next)];if(to){to.focus();to.scrollIntoView({block:'start'})}});
$('dark').addEventListener('click',()=>{const dark=document.body.classList.contains('dark')||
 (!document.body.classList.contains('light')&&matchMedia('(prefers-color-scheme: dark)').matches);
 document.body.className=dark?'light':'dark'});
restore();
"""


def page_of_server(title: str) -> str:
    """Return the page, without records."""
    return document_html(title, _CONTROLS, "<p>loading</p>", _SCRIPT, _FROM_SERVER)


def policy() -> str:
    """Return the content security policy of the page, as a header.

    >>> "default-src 'none'" in policy()
    True
    """
    return escape(
        "; ".join(
            (
                "default-src 'none'",
                f"style-src '{hash_of(page_style())}'",
                f"script-src '{hash_of(_SCRIPT)}'",
                _FROM_SERVER,
                "base-uri 'none'",
                "form-action 'none'",
                "frame-ancestors 'none'",
            )
        ),
        quote=False,
    )
